//! Sections in docs/benchmarks.md: between two comments each, so that one can be measured again without the others. Pure.

use super::Section;

/// What one section says.
#[derive(Debug, Clone)]
pub struct Block {
    pub section: Section,
    /// Machine, versions, date, rounds.
    pub measured: String,
    pub rows: String,
    pub goals: String,
    /// The plot, as seen from the page.
    pub plot: String,
}

impl Block {
    fn text(&self) -> String {
        let Self { section, measured, rows, goals, plot } = self;
        let title = section.title();
        format!(
            "{}\n## {title}\n\n{measured}\n\n![{title}]({plot})\n\n{rows}\n{goals}{}",
            begin(*section),
            end(*section)
        )
    }
}

fn begin(section: Section) -> String {
    format!("<!-- bench-beside {section}: written by the command -->")
}

fn end(section: Section) -> String {
    format!("<!-- bench-beside {section}: end -->\n")
}

/// The page with the block in its place, or at its end where it has none yet.
#[must_use]
pub fn with(page: &str, block: &Block) -> String {
    put(page, &begin(block.section), &block.text(), &end(block.section))
}

/// The same of what `bench-machines` writes.
#[must_use]
pub fn with_machines(page: &str, measured: &str, table: &str) -> String {
    let (begin, end) = ("<!-- bench-machines: written by the command -->", "<!-- bench-machines: end -->\n");
    let title = "A machine: the agent beside kubeadm and the kubelet";
    put(page, begin, &format!("{begin}\n## {title}\n\n{measured}\n\n{table}{end}"), end)
}

/// `text` begins with `begin` and ends with `end`.
fn put(page: &str, begin: &str, text: &str, end: &str) -> String {
    let found = page.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    match found {
        Some((before, after)) => format!("{before}{text}{after}"),
        None => format!("{}\n\n{text}", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(section: Section, rows: &str) -> Block {
        Block { section, measured: "here".into(), rows: rows.into(), goals: "goals\n".into(), plot: "p.svg".into() }
    }

    #[test]
    fn a_section_is_replaced_in_its_place_and_the_rest_stays() {
        let page = with("# Benchmarks\n", &block(Section::Node, "old\n"));
        let page = with(&page, &block(Section::Cni, "calls\n"));
        let page = format!("{page}\nWhy it is so.\n");
        let page = with(&page, &block(Section::Node, "new\n"));
        assert!(page.starts_with("# Benchmarks\n") && page.ends_with("\nWhy it is so.\n"), "{page}");
        assert!(page.contains("new\n") && page.contains("calls\n") && !page.contains("old\n"), "{page}");
        assert!(page.find("new").unwrap() < page.find("calls\n").unwrap());
    }

    #[test]
    fn what_other_commands_write_stays() {
        let page = with_machines("# Benchmarks\n", "once", "| old |\n");
        let page = with(&page, &block(Section::Node, "rows\n"));
        let page = with_machines(&page, "again", "| new |\n");
        assert!(page.contains("rows\n") && page.contains("again\n\n| new |\n") && !page.contains("old"), "{page}");
    }

    #[test]
    fn writing_the_same_twice_changes_nothing() {
        let once = with("# B\n", &block(Section::Proxy, "r\n"));
        assert_eq!(with(&once, &block(Section::Proxy, "r\n")), once);
    }
}
