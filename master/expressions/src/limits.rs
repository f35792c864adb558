//! How long and how deep an expression may be. The engine works by recursion, from the parser to the evaluation, and needs much
//! of the stack for each level: what is too deep would end the process, and anybody may send it.

/// cel-go's `ExpressionSizeCodePointLimit`.
const LONGEST: usize = 100_000;
/// How deep the tree of one may be (cel-go's `maxRecursionDepth`).
const DEEPEST: usize = 250;
/// How many brackets and conditions may be open at once: what the engine's parser takes, and something less.
const MOST_OPEN: usize = 60;
/// What the engine needs of the stack for each level, as it is built for tests; programs take a fifth of it.
const LEVEL: usize = 48 * 1024;

/// Does something with expressions where there is room on the stack for the deepest.
pub fn with_room<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(DEEPEST * LEVEL, DEEPEST * LEVEL, work)
}

/// Refuses what is beyond; the error is worded as cel-go's.
pub(crate) fn within_limits(source: &str) -> Result<(), String> {
    let size = source.chars().count();
    if size > LONGEST {
        return Err(format!("expression code point size exceeds limit: size: {size}, limit {LONGEST}"));
    }
    let (deep, open) = depth(source);
    if deep > DEEPEST || open > MOST_OPEN {
        return Err(format!("expression recursion limit exceeded: {DEEPEST}"));
    }
    Ok(())
}

/// What was read between two brackets so far.
#[derive(Default)]
struct Level {
    /// How deep the operand is that is being read: each operator takes what was read before it as its own operand.
    operand: usize,
    /// How deep those are that `&&` and `||` join with it, which the parser balances.
    joined: usize,
    /// Conditions nest in each other, whatever they are made of.
    conditions: usize,
    /// How deep those are that stand before a comma.
    siblings: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.siblings.max(self.operand.max(self.joined) + self.conditions)
    }

    /// A bracket, and what it holds, belongs to the operand that is being read.
    fn hold(&mut self, inside: usize) {
        self.operand = self.operand.max(inside) + 1;
    }

    fn read(&mut self, token: &str) {
        match token {
            "," => *self = Level { siblings: self.depth(), ..Level::default() },
            "&&" | "||" => {
                self.joined = self.operand.max(self.joined);
                self.operand = 0;
            }
            "?" => self.conditions += 1,
            "in" => self.operand += 1,
            other if other.len() == 1 && other.starts_with(is_operator) => self.operand += 1,
            _ => {}
        }
    }
}

/// How deep the tree of an expression is at most, and how many brackets and conditions are open in it at once.
fn depth(source: &str) -> (usize, usize) {
    let mut rest = source;
    let mut most_open = 0;
    // Of the brackets that are open, the innermost last.
    let (mut outer, mut level) = (Vec::new(), Level::default());
    while !rest.is_empty() {
        let (token, tail) = rest.split_at(token(rest).clamp(1, rest.len()));
        match token {
            "(" | "[" | "{" => outer.push(std::mem::take(&mut level)),
            ")" | "]" | "}" => {
                if let Some(around) = outer.pop() {
                    let inside = std::mem::replace(&mut level, around).depth();
                    level.hold(inside);
                }
            }
            token => level.read(token),
        }
        let conditions: usize = outer.iter().map(|around: &Level| around.conditions).sum();
        most_open = most_open.max(outer.len() + conditions + level.conditions);
        if most_open > MOST_OPEN {
            break;
        }
        rest = tail;
    }
    while let Some(around) = outer.pop() {
        let inside = std::mem::replace(&mut level, around).depth();
        level.hold(inside);
    }
    (level.depth(), most_open)
}

fn is_operator(letter: char) -> bool {
    matches!(letter, '.' | '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!')
}

/// How many bytes the token has that an expression begins with.
fn token(source: &str) -> usize {
    let Some(first) = source.chars().next() else { return 0 };
    if first.is_ascii_alphabetic() || first == '_' {
        let word = source.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(source.len());
        let (prefix, rest) = source.split_at(word);
        let is_prefix = matches!(prefix.to_ascii_lowercase().as_str(), "r" | "b" | "rb" | "br");
        if is_prefix && rest.starts_with(['"', '\'']) {
            return word + literal(rest, prefix.contains(['r', 'R']));
        }
        return word;
    }
    match first {
        '"' | '\'' => literal(source, false),
        '/' if source.starts_with("//") => source.find('\n').unwrap_or(source.len()),
        '&' if source.starts_with("&&") => 2,
        '|' if source.starts_with("||") => 2,
        other => other.len_utf8(),
    }
}

/// How many bytes a literal has that begins with a quote.
fn literal(source: &str, is_raw: bool) -> usize {
    let quote = source.get(..1).unwrap_or_default();
    let thrice = quote.repeat(3);
    let end = if source.starts_with(&thrice) { thrice.as_str() } else { quote };
    let mut at = end.len();
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(end) {
            return at + end.len();
        }
        let escaped = !is_raw && rest.starts_with('\\');
        let letters = if escaped { 2 } else { 1 };
        at += rest.chars().take(letters).map(char::len_utf8).sum::<usize>();
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::within_limits;

    fn depth(source: &str) -> usize {
        super::depth(source).0
    }

    #[test]
    fn depth_is_what_nests() {
        assert_eq!(depth("a"), 0);
        assert_eq!(depth("a.b.c"), 2);
        assert_eq!(depth("[a.b, c.d, e.f]"), 2);
        assert_eq!(depth("f(g(h(x)))"), 3);
        assert_eq!(depth("(a.b.c).d.e(f.g)"), 6);
        // Each `=` of `==` counts, which matters little.
        assert_eq!(depth("a.b == 1 && c.d == 2 || e.f == 3"), 3);
        assert_eq!(depth("a && b ? 1 : c && d ? 2 : 3"), 2);
        assert_eq!(depth("[[["), 3);
        assert_eq!(depth("x[0][1][2]"), 3);
        assert_eq!(depth("a in b in c"), 2);
        assert_eq!(depth("inner.inside"), 1);
    }

    #[test]
    fn texts_and_comments_do_not_nest() {
        assert_eq!(depth(r#"'a.b.c' + "d.e""#), 1);
        assert_eq!(depth(r"r'\' + a.b"), 2);
        assert_eq!(depth(r"'\'...' + a"), 1);
        assert_eq!(depth("'''it's a.b''' + c"), 1);
        assert_eq!(depth("a // don't.\n + b"), 1);
        assert_eq!(depth("'unended..."), 0);
    }

    #[test]
    fn the_deepest_fit_a_small_stack() {
        let all = [
            format!("1{}", "+1".repeat(249)),
            format!("object{}", ".a".repeat(249)),
            format!("object{}", "[0]".repeat(249)),
            format!("'a'{}", ".lowerAscii()".repeat(120)),
            format!("{}1", "true ? 1 : ".repeat(60)),
            format!("{}1{}", "(".repeat(60), ")".repeat(60)),
            format!("{}true{}", "[1].all(x,".repeat(60), ")".repeat(60)),
        ];
        let work = move || {
            for text in &all {
                assert_eq!(within_limits(text), Ok(()), "{text}");
                let _ = crate::check(text, &crate::Scope::default());
                let _ = crate::Variables::default().holds(text);
                let _ = crate::expression(text);
            }
        };
        std::thread::Builder::new().stack_size(1024 * 1024).spawn(work).unwrap().join().unwrap();
    }

    #[test]
    fn what_is_too_much_is_refused() {
        assert_eq!(within_limits(&"a.b == 'c' && ".repeat(2_000)), Ok(()));
        let deep = format!("1{}", "+1".repeat(1_000));
        assert_eq!(within_limits(&deep), Err("expression recursion limit exceeded: 250".into()));
        assert!(within_limits(&"(".repeat(61)).is_err() && within_limits(&"(".repeat(60)).is_ok());
        assert!(within_limits(&format!("{}1", "a ? b : ".repeat(61))).is_err());
        let long = "a".repeat(100_001);
        let wanted = "expression code point size exceeds limit: size: 100001, limit 100000";
        assert_eq!(within_limits(&long), Err(wanted.into()));
    }
}
