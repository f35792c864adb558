//! The text form of label selectors: `a=b,c!=d,e in (f, g),h notin (i),j,!k,l>1`.

use super::{Operator, Requirement, SelectorError};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Identifier(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn literal(&self) -> &str {
        match self {
            Self::Identifier(text) => text,
            Self::Symbol(text) => text,
            Self::End => "",
        }
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(text) if *text == symbol)
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text;
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            tokens.push(Token::End);
            return tokens;
        }
        if let Some((symbol, after)) = SYMBOLS.iter().find_map(|symbol| Some((*symbol, rest.strip_prefix(symbol)?))) {
            tokens.push(Token::Symbol(symbol));
            rest = after;
            continue;
        }
        let ends = |c: char| " \t\r\n=!(),<>".contains(c);
        let (word, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        tokens.push(Token::Identifier(word.to_owned()));
        rest = after;
    }
}

/// Parses the whole text.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text).into_iter().peekable() };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(requirements),
            token if token.is("!") || matches!(token, Token::Identifier(_)) => {
                requirements.push(parser.requirement().map_err(SelectorError::Requirement)?);
            }
            token => {
                return Err(syntax(&token, "expected: !, identifier, or 'end of string'"));
            }
        }
        match parser.next() {
            Token::End => return Ok(requirements),
            token if token.is(",") => {
                let after = parser.peek();
                if !after.is("!") && !matches!(after, Token::Identifier(_)) {
                    return Err(syntax(&after, "expected: identifier after ','"));
                }
            }
            token => return Err(syntax(&token, "expected: ',' or 'end of string'")),
        }
    }
}

fn syntax(found: &Token, expected: &str) -> SelectorError {
    SelectorError::Syntax(format!("found '{}', {expected}", found.literal()))
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn peek(&mut self) -> Token {
        self.tokens.peek().cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let negated = token.is("!");
        if negated {
            token = self.next();
        }
        let Token::Identifier(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.literal()));
        };
        let errors = crate::names::label_key_errors(&key);
        if !errors.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", errors.join("; ")));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        let after = self.peek();
        if after == Token::End || after.is(",") {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let (operator, is_set) = self.operator()?;
        let values = if is_set { self.values()? } else { self.exact_value()? };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<(Operator, bool), String> {
        let token = self.next();
        match token.literal() {
            "in" => Ok((Operator::In, true)),
            "notin" => Ok((Operator::NotIn, true)),
            "=" | "==" => Ok((Operator::In, false)),
            "!=" => Ok((Operator::NotIn, false)),
            ">" => Ok((Operator::Gt, false)),
            "<" => Ok((Operator::Lt, false)),
            found => Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn exact_value(&mut self) -> Result<Vec<String>, String> {
        let after = self.peek();
        if after == Token::End || after.is(",") {
            return Ok(vec![String::new()]);
        }
        match self.next() {
            Token::Identifier(value) => Ok(vec![value]),
            token => Err(format!("found '{}', expected: identifier", token.literal())),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if !open.is("(") {
            return Err(format!("found '{}' expected: '('", open.literal()));
        }
        let first = self.peek();
        if first.is(")") {
            self.next();
            return Ok(Vec::new());
        }
        if !first.is(",") && !matches!(first, Token::Identifier(_)) {
            return Err(format!("found '{}', expected: ',', ')' or identifier", first.literal()));
        }
        let mut values = self.identifiers()?;
        self.next();
        values.sort();
        values.dedup();
        Ok(values)
    }

    /// Up to, but without, the closing parenthesis. A missing identifier is the empty value.
    fn identifiers(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Identifier(value) => {
                    values.push(value);
                    let after = self.peek();
                    if after.is(")") {
                        return Ok(values);
                    }
                    if !after.is(",") {
                        return Err(format!("found '{}', expected: ',' or ')'", after.literal()));
                    }
                }
                token if token.is(",") => {
                    let after = self.peek();
                    if values.is_empty() || after.is(",") || after.is(")") {
                        values.push(String::new());
                    }
                    if after.is(")") {
                        return Ok(values);
                    }
                }
                token => return Err(format!("found '{}', expected: ',', or identifier", token.literal())),
            }
        }
    }
}
