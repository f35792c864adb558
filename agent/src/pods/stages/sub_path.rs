//! Which part of a volume a container sees (`subPath`, `subPathExpr`).

use std::collections::BTreeMap;

use volumes::plan::SubPath;

use super::StageError;
use super::container::CONFIG_ERROR;

/// The path within the volume; `None` for all of it. The texts are upstream's.
///
/// # Errors
/// `CreateContainerConfigError`: a variable without a value, which would name a folder that is others', or a path that leads out of the volume.
pub fn resolve(given: &SubPath, env: &BTreeMap<String, String>) -> Result<Option<String>, StageError> {
    let path = match given {
        SubPath::Whole => return Ok(None),
        SubPath::Fixed(path) => path.clone(),
        SubPath::Expression(text) => pod::env::expand_known(text, |name| env.get(name).cloned())
            .map_err(|error| StageError::new(CONFIG_ERROR, error.to_string()))?,
    };
    let refuse = |text: String| Err(StageError::new(CONFIG_ERROR, text));
    if path.starts_with('/') {
        return refuse(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return refuse(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_shown_more_than_is_his() {
        let env = [("EMPTY", ""), ("NAME", "a"), ("UP", ".."), ("ROOT", "/a")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let resolved = |text: &str| resolve(&SubPath::Expression(text.to_owned()), &env).map_err(|error| error.message);
        assert_eq!(resolved("logs/$(NAME)").unwrap().as_deref(), Some("logs/a"));
        for (text, error) in [
            ("$(EMPTY)", "missing value for EMPTY"),
            ("x/$(EMPTY)", "missing value for EMPTY"),
            ("$(NONE)/$(EMPTY)/$(NONE)/$(NAME)", "missing value for EMPTY, NONE"),
            ("$(ROOT)", "error SubPath `/a` must not be an absolute path"),
            ("$(NAME)/$(UP)", "unable to provision SubPath `a/..`: must not contain '..'"),
        ] {
            assert_eq!(resolved(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(resolve(&SubPath::Fixed("a/b".to_owned()), &env).unwrap().as_deref(), Some("a/b"));
        assert_eq!(resolve(&SubPath::Whole, &env).unwrap(), None);
    }
}
