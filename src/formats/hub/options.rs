//! Where models come from and where they are kept.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where models come from and where they are kept. [`Options::default`] is what the hub's own libraries read from
/// the environment.
#[derive(Clone)]
pub struct Options {
    /// Only what is in the cache: `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// What shows the hub who asks: `HF_TOKEN`, or the file that `hf auth login` writes. Sent to
    /// [`Options::endpoint`] alone.
    pub token: Option<String>,
    /// Where files are kept: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, which is `~/.cache/huggingface`.
    pub cache: PathBuf,
    /// The hub: `HF_ENDPOINT`, or `https://huggingface.co`.
    pub endpoint: String,
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file that is on its way.
    pub file: &'a str,
    /// Bytes of all files that are there, of `total`. What the cache had is in neither.
    pub done: u64,
    pub total: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options::of(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }
}

impl Options {
    fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| variable(name)?.into_string().ok();
        let on = |name: &str| {
            text(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&&*value.to_ascii_uppercase()))
        };
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HF_HOME").unwrap_or_else(|| {
            let caches = path("XDG_CACHE_HOME")
                .unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache"));
            caches.join("huggingface")
        });
        let saved = || {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            std::fs::read_to_string(file).ok().filter(|_| !on("HF_HUB_DISABLE_IMPLICIT_TOKEN"))
        };
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(saved);
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Options {
            offline: on("HF_HUB_OFFLINE"),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Options {
        Options::of(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn variables_of_the_hubs_own_libraries() {
        let plain = of(&[("XDG_CACHE_HOME", "/x")]);
        assert_eq!(plain.cache, PathBuf::from("/x/huggingface/hub"));
        assert_eq!((plain.offline, plain.token, &*plain.endpoint), (false, None, "https://huggingface.co"));
        let cache = |variables: &[(&str, &str)]| of(variables).cache;
        assert_eq!(cache(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), PathBuf::from("/h/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), PathBuf::from("/c"));
        assert_eq!(of(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
        for (value, offline) in [("1", true), ("true", true), ("YES", true), ("0", false)] {
            assert_eq!(of(&[("HF_HUB_OFFLINE", value)]).offline, offline);
        }
    }

    #[test]
    fn tokens_from_the_variable_or_the_file_of_a_login() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "of-login\n").unwrap();
        let home = ("HF_HOME", home.path().to_str().unwrap());
        assert_eq!(of(&[home]).token.as_deref(), Some("of-login"));
        assert_eq!(of(&[home, ("HF_TOKEN", " given ")]).token.as_deref(), Some("given"));
        assert_eq!(of(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
    }
}
