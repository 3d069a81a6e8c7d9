//! Where the hub is and how it is spoken to: the variables that its other clients read too, and one key of ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Error, Result};

/// The hub that everybody means.
const ENDPOINT: &str = "https://huggingface.co";

/// How to reach a hub and where to keep what it gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`; `None` where not even a home folder is known.
    pub cache: Option<PathBuf>,
    /// `HF_HUB_OFFLINE`: no request is made.
    pub offline: bool,
    /// File with a token, from our own setting. It must be there.
    pub token_file: Option<PathBuf>,
    /// Where the hub's other clients leave their token: `HF_TOKEN_PATH`, or `token` in `HF_HOME`. May be absent.
    pub login_file: Option<PathBuf>,
    /// `SSL_CERT_FILE`: certificates to trust in place of the built-in ones.
    pub certificates: Option<PathBuf>,
    /// `HF_TOKEN` is set; it is not read, and who set it is told so.
    pub token_in_environment: bool,
    /// Wait before the second try; doubles from try to try.
    pub first_wait: Duration,
}

impl Settings {
    /// Settings from the environment's variables, and the token file that our own setting names.
    pub fn of_environment(environment: &[(String, String)], token_file: Option<PathBuf>) -> Self {
        let given = |name: &str| {
            let found = environment.iter().find(|(key, value)| key == name && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        let path = |name: &str| given(name).map(PathBuf::from);
        let caches = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(caches?.join("huggingface")));
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let offline = given("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: path("HF_HUB_CACHE").or_else(|| in_home("hub")),
            offline: ["1", "true", "yes", "on"].contains(&offline.as_str()),
            token_file,
            login_file: path("HF_TOKEN_PATH").or_else(|| in_home("token")),
            certificates: path("SSL_CERT_FILE"),
            token_in_environment: given("HF_TOKEN").is_some(),
            first_wait: Duration::from_millis(250),
        }
    }

    /// The cache's folder.
    pub(super) fn cache(&self) -> Result<&Path> {
        self.cache.as_deref().ok_or_else(|| Error::Setting {
            name: "HF_HOME",
            value: "not set".to_owned(),
            problem: "without HOME there is no place for what is fetched; set one of the two"
                .to_owned(),
        })
    }

    /// The token that requests carry, if there is one and it may travel to the endpoint.
    ///
    /// # Errors
    /// For a named file that cannot be read or holds no token, and for a named token that would travel unencrypted.
    pub(super) fn token(&self) -> Result<Option<String>> {
        if self.token_in_environment {
            tracing::warn!(
                "HF_TOKEN is not read; put the token into a file and name it by hf_token_file"
            );
        }
        let named = self.token_file.as_deref();
        let Some(file) = named.or(self.login_file.as_deref()) else { return Ok(None) };
        let refused = |problem: String| Error::Setting {
            name: "hf_token_file",
            value: file.display().to_string(),
            problem,
        };
        let token = match std::fs::read_to_string(file) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if named.is_some() => return Err(refused(error.to_string())),
            Err(_) => return Ok(None),
        };
        let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        match (fits, named.is_some(), self.is_private()) {
            (true, _, true) => Ok(Some(token)),
            (true, true, false) => {
                let endpoint = &self.endpoint;
                Err(refused(format!(
                    "would travel unencrypted to {endpoint}; give an https one by HF_ENDPOINT"
                )))
            }
            (false, true, _) => Err(refused("must hold one token and nothing else".to_owned())),
            (_, false, _) => {
                tracing::warn!(file = %file.display(), "this token is not sent: it is no token, or the hub is not asked over https");
                Ok(None)
            }
        }
    }

    /// Whether nobody between here and the endpoint can read along.
    fn is_private(&self) -> bool {
        let Ok(uri) = self.endpoint.parse::<http::Uri>() else { return false };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let own = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        own || uri.scheme_str() == Some("https")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Settings::of_environment(&variables.iter().map(own).collect::<Vec<_>>(), None)
    }

    #[test]
    fn the_cache_is_where_other_clients_of_the_hub_have_it() {
        let rows: [(&[(&str, &str)], &str); 4] = [
            (&[("HOME", "/h")], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "/f")], "/f/hub"),
            (&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], "/c"),
        ];
        for (variables, cache) in rows {
            assert_eq!(settings(variables).cache().unwrap(), Path::new(cache));
        }
        assert!(settings(&[]).cache().unwrap_err().to_string().contains("HF_HOME"));
    }

    #[test]
    fn offline_is_what_the_variable_says() {
        for (value, offline) in [("1", true), ("TRUE", true), ("0", false), ("", false)] {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[test]
    fn a_token_travels_encrypted_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "hf_secret\n").unwrap();
        let rows = [
            ("https://hub.example", true),
            ("http://127.0.0.1:80", true),
            ("http://[::1]:80/path", true),
            ("http://hub.example", false),
            ("http://localhost.example", false),
        ];
        for (endpoint, sent) in rows {
            let mut settings = settings(&[("HF_ENDPOINT", endpoint)]);
            settings.login_file = Some(file.clone());
            assert_eq!(settings.token().unwrap().is_some(), sent, "{endpoint}");
            settings.token_file = Some(file.clone());
            assert_eq!(settings.token().is_ok(), sent, "{endpoint}");
        }
    }

    #[test]
    fn a_named_token_file_must_hold_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let mut settings = settings(&[]);
        settings.token_file = Some(file.clone());
        assert!(settings.token().is_err());
        for content in ["", "two words", "line\nline"] {
            std::fs::write(&file, content).unwrap();
            let told = settings.token().unwrap_err().to_string();
            assert!(told.contains("hf_token_file") && !told.contains("words"), "{told}");
        }
    }
}
