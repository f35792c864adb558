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
    let (begin, end) = (begin(block.section), end(block.section));
    let found = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    match found {
        Some((before, after)) => format!("{before}{}{after}", block.text()),
        None => format!("{}\n\n{}", page.trim_end(), block.text()),
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
    fn writing_the_same_twice_changes_nothing() {
        let once = with("# B\n", &block(Section::Proxy, "r\n"));
        assert_eq!(with(&once, &block(Section::Proxy, "r\n")), once);
    }
}
