//! Reads ginkgo's JSON report.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What a test ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    Fail,
    /// The test found that it does not apply.
    Skip,
}

/// One test that ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// As it is in the passing lists: containers and test, joined by spaces.
    pub name: String,
    pub verdict: Verdict,
    pub seconds: f64,
    /// Why it failed or was skipped; empty otherwise.
    pub message: String,
    /// Where it failed: FILE:LINE.
    pub location: String,
    /// Everything that the test printed.
    pub output: String,
}

/// What tests print before they give up without failing: upstream's code returns there, and ginkgo reports a pass of which nothing was
/// tested.
const GAVE_UP: [&str; 2] = [
    // Each test that makes a CustomResourceDefinition with `crd.CreateTestCRD`: CustomResourceConversionWebhook, AdmissionWebhook, ….
    "Unexpected error while creating CustomResourceDefinition",
    // ServiceAccounts should run through the lifecycle of a ServiceAccount.
    "failed to setup watch on newly created ServiceAccount",
];

impl Outcome {
    /// A pass of which the output says that the test gave up is red.
    #[must_use]
    pub fn judged(mut self) -> Self {
        let gave_up = GAVE_UP.iter().find_map(|sign| self.output.lines().find(|line| line.contains(sign)));
        if let (Verdict::Pass, Some(line)) = (self.verdict, gave_up) {
            self.message = format!("it passed without having tested anything: {}", line.trim());
            self.verdict = Verdict::Fail;
        }
        self
    }

    /// `sig-node` of `[sig-node] Pods should …`; the suite's name where a test has none.
    #[must_use]
    pub fn sig(&self) -> &str {
        sig(&self.name)
    }

    /// The namespaces that a red test made.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for rest in self.output.split("STEP: Collecting events from namespace \"").skip(1) {
            let name = rest.split('"').next().unwrap_or_default().to_owned();
            if !found.contains(&name) {
                found.push(name);
            }
        }
        found
    }
}

/// The SIG in a test's name.
#[must_use]
pub fn sig(name: &str) -> &str {
    let inner = name.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(sig, _)| sig);
    inner.filter(|s| s.starts_with("sig-")).unwrap_or("other")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SuiteReport {
    #[serde(default)]
    spec_reports: Option<Vec<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    #[serde(default)]
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    #[serde(default)]
    run_time: u64,
    #[serde(default)]
    failure: Option<Failure>,
    #[serde(default)]
    captured_ginkgo_writer_output: String,
    #[serde(default)]
    captured_std_out_err: String,
    #[serde(default)]
    spec_events: Option<Vec<SpecEvent>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecEvent {
    spec_event_type: String,
    #[serde(default)]
    timeline_location: TimelineLocation,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct TimelineLocation {
    /// Where it is in the output, in bytes.
    #[serde(default)]
    offset: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
    #[serde(default)]
    location: Location,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Location {
    #[serde(default)]
    file_name: String,
    #[serde(default)]
    line_number: u32,
}

/// The tests of a report that ran; those that filters left out are not among them.
///
/// # Errors
/// When the file cannot be read or is no report.
pub fn read(path: &Path) -> Result<Vec<Outcome>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let suites: Vec<SuiteReport> =
        serde_json::from_reader(BufReader::new(file)).with_context(|| format!("{} is no report", path.display()))?;
    let specs = suites.into_iter().flat_map(|suite| suite.spec_reports.unwrap_or_default());
    Ok(specs.filter_map(outcome).collect())
}

fn outcome(spec: Spec) -> Option<Outcome> {
    let (message, location) = spec.failure.map_or_else(Default::default, |failure| {
        (failure.message, format!("{}:{}", failure.location.file_name, failure.location.line_number))
    });
    let verdict = match spec.state.as_str() {
        "passed" => Verdict::Pass,
        // A test that skips itself says why; one that a filter left out does not.
        "skipped" if message.is_empty() => return None,
        "skipped" => Verdict::Skip,
        "pending" => return None,
        _ => Verdict::Fail,
    };
    let mut texts = spec.container_hierarchy_texts.unwrap_or_default();
    if spec.leaf_node_type == "It" {
        texts.push(spec.leaf_node_text);
    } else if verdict == Verdict::Fail {
        // What every process does before or after the suite; ours to know only when it fails.
        texts.push(format!("[{}]", spec.leaf_node_type));
    } else {
        return None;
    }
    let name = texts.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    #[allow(clippy::cast_precision_loss)] // a duration
    let seconds = spec.run_time as f64 / 1e9;
    let output = with_steps(&spec.captured_ginkgo_writer_output, spec.spec_events.as_deref().unwrap_or_default());
    let output = output + &spec.captured_std_out_err;
    Some(Outcome { name, verdict, seconds, message, location, output }.judged())
}

/// What a test printed, with the steps that it went through where they belong.
fn with_steps(output: &str, events: &[SpecEvent]) -> String {
    let mut text = String::with_capacity(output.len() + events.len() * 64);
    let mut at = 0;
    for step in events.iter().filter(|e| e.spec_event_type == "By") {
        let until = step.timeline_location.offset;
        if let Some(before) = output.get(at..until) {
            text.push_str(before);
            at = until;
        }
        text.push_str("STEP: ");
        text.push_str(&step.message);
        text.push('\n');
    }
    text.push_str(output.get(at..).unwrap_or_default());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ran_and_nothing_else() {
        let text = r#"[{"SpecReports": [
            {"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeType": "It", "LeafNodeText": "should  run [Conformance]",
             "State": "passed", "RunTime": 1500000000},
            {"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeType": "It", "LeafNodeText": "should fail", "State": "timedout",
             "RunTime": 0, "Failure": {"Message": "too late", "Location": {"FileName": "pods.go", "LineNumber": 7}},
             "CapturedGinkgoWriterOutput": "before\nafter\n", "SpecEvents": [
                {"SpecEventType": "Node", "TimelineLocation": {"Offset": 2}, "Message": "no step"},
                {"SpecEventType": "By", "TimelineLocation": {"Offset": 7}, "Message": "Collecting events from namespace \"pods-12\"."}]},
            {"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeType": "It", "LeafNodeText": "left out", "State": "skipped"},
            {"ContainerHierarchyTexts": ["Windows"], "LeafNodeType": "It", "LeafNodeText": "x", "State": "skipped",
             "Failure": {"Message": "only on Windows", "Location": {}}},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "passed"}
        ]}]"#;
        let path = std::env::temp_dir().join(format!("keelson-report-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let outcomes = read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let seen: Vec<_> = outcomes.iter().map(|o| (o.name.as_str(), o.verdict, o.sig())).collect();
        assert_eq!(
            seen,
            [
                ("[sig-node] Pods should run [Conformance]", Verdict::Pass, "sig-node"),
                ("[sig-node] Pods should fail", Verdict::Fail, "sig-node"),
                ("Windows x", Verdict::Skip, "other"),
            ]
        );
        assert!((outcomes[0].seconds - 1.5).abs() < 1e-9);
        assert_eq!((outcomes[1].message.as_str(), outcomes[1].location.as_str()), ("too late", "pods.go:7"));
        assert_eq!(outcomes[1].output, "before\nSTEP: Collecting events from namespace \"pods-12\".\nafter\n");
        assert_eq!(outcomes[1].namespaces(), ["pods-12"]);
    }

    #[test]
    fn a_test_that_gave_up_did_not_pass() {
        let error =
            "crd_util.go:84] Unexpected error while creating CustomResourceDefinition: the server could not find it";
        let spec = |printed: &str| {
            let spec = serde_json::json!({"LeafNodeType": "It", "LeafNodeText": "x", "State": "passed", "CapturedGinkgoWriterOutput": printed});
            outcome(serde_json::from_value(spec).unwrap()).unwrap()
        };
        let hollow = spec(&format!("before\n{error}\nafter\n"));
        assert_eq!(hollow.verdict, Verdict::Fail);
        assert_eq!(hollow.message, format!("it passed without having tested anything: {error}"));
        assert_eq!(spec("before\nafter\n").verdict, Verdict::Pass);
    }
}
