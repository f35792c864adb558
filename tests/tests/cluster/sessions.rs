//! kubectl where it stays on the line or comes again: watches, followed logs, terminals, attached containers, objects applied twice.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use keelson_tests::harness::images::BUSYBOX;
use keelson_tests::harness::kubectl::program;
use keelson_tests::harness::shell::output;

use crate::Test;
use crate::context::{Context, Namespace};

pub const TESTS: &[Test] = &[
    ("sessions::a_watch_shows_pods_come_and_go", watch),
    ("sessions::logs_are_followed_to_the_end", follow),
    ("sessions::exec_has_a_terminal_of_the_right_size", terminal),
    ("sessions::containers_are_attached_to", attach),
    ("sessions::applying_again_changes_what_differs", apply_again),
    ("sessions::a_dry_run_leaves_no_trace", dry_run),
];

/// A kubectl that runs until it is dropped, read line by line.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        Ok(Self { child, lines })
    }

    /// Reads up to a line that holds all `parts`; kubectl's own timeout ends a line that never comes.
    fn line_with(&mut self, parts: &[&str]) -> Result<()> {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line?;
            if parts.iter().all(|part| line.contains(part)) {
                return Ok(());
            }
            seen.push(line);
        }
        bail!("no line with {parts:?} in {seen:#?}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pod of one busybox that runs a script.
fn shell(ns: &Namespace<'_>, name: &str, script: &str) -> Result<()> {
    ns.run(&["run", name, "--image", BUSYBOX, "--restart=Never", "--", "sh", "-c", script]).map(drop)
}

fn watch(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let mut command = ns.command();
    command.args(["get", "pods", "-w", "--output-watch-events", "--request-timeout=60s", "--no-headers"]);
    let mut watch = Running::start(&mut command)?;
    shell(&ns, "p", "exec sleep 1000")?;
    watch.line_with(&["ADDED", "p", "0/1"])?;
    watch.line_with(&["MODIFIED", "p", "Running"])?;
    ns.say("delete pod p --grace-period=1")?;
    watch.line_with(&["DELETED", "p"])
}

fn follow(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    shell(&ns, "p", "for i in 1 2 3 4; do echo tick $i; sleep 1; done; echo over; exit 3")?;
    // Refused while the container does not exist yet, as upstream refuses it.
    let said = ns.until("the log to be followed", || ns.say("logs -f p"))?;
    ensure!(said == "tick 1\ntick 2\ntick 3\ntick 4\nover\n", "{said:?}");
    Ok(())
}

fn terminal(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    shell(&ns, "p", "exec sleep 1000")?;
    ns.wait("pod/p", "condition=Ready")?;
    let kubectl = format!("{} --kubeconfig {}", program().display(), context.kubectl().kubeconfig.display());
    // `script` is the terminal. The new size travels beside the command: the container may see it a moment later.
    let inner = "tty; for i in 1 2 3 4 5 6 7 8 9; do stty size; sleep 0.2; done; exit 5";
    let line = format!("stty rows 40 cols 100; {kubectl} -n {} exec -it p -- sh -c '{inner}'", ns.name);
    let said = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&said.stdout);
    ensure!(text.contains("/dev/pts/"), "no terminal: {text}");
    ensure!(text.contains("40 100"), "not of that size: {text}");
    ensure!(said.status.code() == Some(5), "exec ended with {:?}: {text}", said.status);
    Ok(())
}

fn attach(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{restartPolicy: Never, containers: [\
         {{name: c, image: {BUSYBOX}, command: [sh, -c, 'read a; echo got $a; read b; echo and $b'], stdin: true}}]}}}}"
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    let mut child =
        ns.command().args(["attach", "-i", "p", "-c", "c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    stdin.write_all(b"this\n")?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    ensure!(lines.next().context("the first answer")?? == "got this");
    stdin.write_all(b"that\n")?;
    ensure!(lines.next().context("the second answer")?? == "and that");
    ensure!(child.wait()?.success());
    ns.wait("pod/p", "jsonpath={.status.phase}=Succeeded")?;
    // A pod for one command, gone with it.
    let once = ["run", "once", "--image", BUSYBOX, "-i", "--rm", "-q", "--restart=Never", "--", "tr", "a-z", "A-Z"];
    let said = ns.fed(&once, "quick and gone\n")?;
    ensure!(said.contains("QUICK AND GONE"), "{said:?}");
    ensure!(ns.refused(&["get", "pod", "once"])?.contains("pods \"once\" not found"));
    Ok(())
}

fn apply_again(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let service = |port: u16, labels: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s, labels: {{{labels}}}}}, spec: {{selector: {{app: a}}, \
             ports: [{{name: http, port: {port}}}]}}}}"
        )
    };
    ensure!(ns.apply(&service(80, "a: x, b: w"))?.contains("service/s created"));
    let address = ns.say("get service s -o jsonpath={.spec.clusterIP}")?;
    ensure!(ns.apply(&service(80, "a: x, b: w"))?.contains("service/s unchanged"));
    ns.say("label service s own=kept")?;
    let different = diff(&ns, &service(81, "a: z"))?;
    ensure!(different.contains("-    port: 80") || different.contains("-  - name: http"), "{different}");
    ensure!(ns.apply(&service(81, "a: z"))?.contains("service/s configured"));
    let now = ns.json("get service s")?;
    ensure!(now["metadata"]["labels"] == serde_json::json!({"a": "z", "own": "kept"}), "{}", now["metadata"]);
    ensure!(now["spec"]["ports"][0]["port"] == 81 && now["spec"]["ports"].as_array().is_some_and(|p| p.len() == 1));
    ensure!(now["spec"]["clusterIP"] == address.as_str(), "the address changed: {}", now["spec"]);
    ensure!(ns.say("apply view-last-applied service/s")?.contains("port: 81"));
    ns.fed(&["delete", "-f", "-"], &service(81, "a: z")).map(drop)
}

/// `kubectl diff`, which exits with 1 where something differs.
fn diff(ns: &Namespace<'_>, manifest: &str) -> Result<String> {
    let mut child = ns
        .command()
        .args(["diff", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin")?.write_all(manifest.as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(out.status.code() == Some(1), "kubectl diff: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn dry_run(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let said = ns.say("create configmap c --from-literal=a=1 --dry-run=server -o yaml")?;
    ensure!(said.contains("uid: ") && said.contains("a: \"1\""), "{said}");
    ensure!(ns.refused(&["get", "configmap", "c"])?.contains("not found"));
    ns.say("create configmap c --from-literal=a=1")?;
    ns.run(&["patch", "configmap", "c", "--dry-run=server", "-p", r#"{"data":{"a":"2"}}"#])?;
    ns.say("delete configmap c --dry-run=server")?;
    ensure!(ns.say("get configmap c -o jsonpath={.data.a}")? == "1");
    let client = output(ns.command().args(["run", "p", "--image", BUSYBOX, "--dry-run=client", "-o", "name"]))?;
    ensure!(client.trim() == "pod/p" && ns.refused(&["get", "pod", "p"])?.contains("not found"));
    Ok(())
}
