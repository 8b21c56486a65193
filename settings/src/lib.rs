//! How the programs are configured: flags over environment over file over defaults.
//!
//! **What it is.** A program has one table of [`Key`]s; flags, environment variables, the file, `--help` and `--print-config` are made from it,
//! so that they cannot differ. An unknown key is an error, a value that is not allowed is told with what is.
//!
//! **Owns** where values come from, how they are written, and the lines of the log. **Must never** know a program's keys, or print the value of
//! a secret one. **Read next**: [`Settings`], [`keys`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches};

pub mod keys;
mod logs;
pub mod private_files;
pub mod variables;

pub use keys::Key;
pub use logs::{LogFormat, Logs};

/// The configuration of a program; its default is what holds where nothing is said.
pub trait Settings: Default + fmt::Debug + 'static {
    /// The program, as `ledger-node`.
    const PROGRAM: &'static str;
    /// What prints the effective configuration, as `ledger-node --print-config`.
    const PRINTS: &'static str;
    /// What its environment variables begin with, as `HOLDFAST`.
    const VARIABLES: &'static str;
    /// The variable that names the file, as `HOLDFAST_CONFIG`.
    const FILE_VARIABLE: &'static str;
    /// The heading in `--help` of keys without a table.
    const HEADING: &'static str;
    /// All keys, as `--help` and `--print-config` tell them.
    const KEYS: &'static [Key<Self>];

    /// Checks values against each other.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`], naming the keys.
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A key in the file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// What is wrong with a configuration; each names the key and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {why}", path.display())]
    NotToml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// A key that does not exist.
    #[error("{}: unknown key `{key}`; did you mean `{nearest}`? `{prints}` lists all keys", path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The known key that looks most like it.
        nearest: &'static str,
        /// What lists them.
        prints: &'static str,
    },
    /// A variable that would be this program's, if there were such a key.
    #[error("unknown environment variable {name}; did you mean {nearest}? `{prints}` lists all keys")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The known variable that looks most like it.
        nearest: String,
        /// What lists the keys.
        prints: &'static str,
    },
    /// A value that is not allowed.
    #[error("`{key}` ({origin}) is {got}: {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// Where it was set.
        origin: Origin,
        /// The value given, quoted; of a secret key only that there is one.
        got: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two values that do not go together.
    #[error("{0}")]
    Conflict(String),
}

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The effective configuration.
    pub config: C,
    origins: BTreeMap<&'static str, Origin>,
}

impl<C: Settings> Loaded<C> {
    /// Puts the sources together: `flags` (key → value, as given), all variables of the
    /// environment, and the file.
    ///
    /// # Errors
    /// [`ConfigError`], for the first thing that is wrong.
    pub fn from_sources(
        flags: &BTreeMap<&'static str, String>,
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        variables::check::<C>(environment.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        let mut loaded = Self { config: C::default(), origins: BTreeMap::new() };
        let from_file = match file {
            Some(path) => read_file::<C>(path)?,
            None => BTreeMap::new(),
        };
        for key in C::KEYS {
            let variable = key.variable();
            if let Some(value) = flags.get(key.name) {
                loaded.set(key, value, Origin::Flag(key.flag()))?;
            } else if let Some(value) = environment.get(&variable) {
                loaded.set(key, value, Origin::Environment(variable))?;
            } else if let (Some(value), Some(path)) = (from_file.get(key.name), file) {
                loaded.set(key, value, Origin::File(path.to_owned()))?;
            }
        }
        loaded.config.validate()?;
        Ok(loaded)
    }

    /// Puts together what parsed [`arguments`], the process's environment and the file say.
    ///
    /// # Errors
    /// As [`Self::from_sources`].
    pub fn from_matches(matches: &ArgMatches) -> Result<Self, ConfigError> {
        let flag = |key: &Key<C>| Some((key.name, matches.get_one::<String>(key.name)?.clone()));
        let file = matches.get_one::<String>("config").map(PathBuf::from);
        Self::from_sources(&C::KEYS.iter().filter_map(flag).collect(), process_environment(), file.as_deref())
    }

    fn set(&mut self, key: &Key<C>, value: &str, origin: Origin) -> Result<(), ConfigError> {
        (key.set)(&mut self.config, value).map_err(|allowed| ConfigError::BadValue {
            key: key.name,
            origin: origin.clone(),
            got: if key.secret { "not allowed".to_owned() } else { format!("{value:?}") },
            allowed,
        })?;
        self.origins.insert(key.name, origin);
        Ok(())
    }

    /// The effective configuration as a TOML file, with what each key is for and where its value came from.
    pub fn to_toml(&self) -> String {
        let mut text =
            format!("# Effective configuration of {}: flags over environment over file over defaults.\n", C::PROGRAM);
        // Keys without a table come first, as TOML wants it.
        let (plain, tables): (Vec<_>, Vec<_>) = C::KEYS.iter().partition(|key| key.table().is_none());
        let mut section = "";
        for key in plain.into_iter().chain(tables) {
            let (table, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if table != section {
                text.push_str(&format!("\n[{table}]\n"));
                section = table;
            }
            let origin = self.origins.get(key.name).unwrap_or(&Origin::Default);
            text.push_str(&format!("# {}\n", key.what));
            match (key.get)(&self.config) {
                Some(value) => text.push_str(&format!("{name} = {value} # {origin}\n")),
                None => text.push_str(&format!("# {name} is not set # {origin}\n")),
            }
        }
        text
    }
}

/// The variables of this process. What is not text in a value is replaced; a name that is not text
/// is no name of ours.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned()));
    std::env::vars_os().filter_map(text)
}

/// The arguments of a program: `--config`, `--print-config`, and one for each key.
pub fn arguments<C: Settings>() -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env(C::FILE_VARIABLE)
        .help("A TOML file with keys as below");
    let print = Arg::new("print-config")
        .long("print-config")
        .action(ArgAction::SetTrue)
        .help("Print the effective configuration as TOML, with the origin of each value, and exit");
    let keys = C::KEYS.iter().map(|key| {
        let arg = Arg::new(key.name).long(key.flag()).value_name("VALUE").help(key.what);
        let arg = arg.help_heading(key.table().unwrap_or(C::HEADING));
        match key.switch {
            true => arg.num_args(0..=1).default_missing_value("true"),
            false => arg.allow_hyphen_values(true),
        }
    });
    [config, print].into_iter().chain(keys).collect()
}

/// What parsed [`arguments`] ask for: the configuration to run with.
///
/// # Errors
/// The process is to end with this code: it was told to print its configuration, and did, or something is wrong with that, and it said so.
pub fn load<C: Settings>(matches: &ArgMatches) -> Result<C, ExitCode> {
    match Loaded::<C>::from_matches(matches) {
        Ok(loaded) if matches.get_flag("print-config") => {
            print!("{}", loaded.to_toml());
            Err(ExitCode::SUCCESS)
        }
        Ok(loaded) => Ok(loaded.config),
        Err(error) => {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
            eprintln!("error: {error}{why}");
            Err(ExitCode::from(2))
        }
    }
}

fn read_file<C: Settings>(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let not_toml = |why: String| ConfigError::NotToml { path: path.to_owned(), why };
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| not_toml(e.to_string()))?;
    let mut flat = BTreeMap::new();
    flatten("", &table, &mut flat);
    match flat.keys().find(|key| !C::KEYS.iter().any(|known| known.name == *key)) {
        Some(key) => Err(ConfigError::UnknownKey {
            path: path.to_owned(),
            key: key.clone(),
            nearest: nearest(key, C::KEYS.iter().map(|known| known.name)),
            prints: C::PRINTS,
        }),
        None => Ok(flat),
    }
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, flat),
            toml::Value::String(text) => drop(flat.insert(key, text.clone())),
            toml::Value::Array(items) => {
                let items = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                flat.insert(key, items.collect::<Vec<_>>().join(","));
            }
            other => drop(flat.insert(key, other.to_string())),
        }
    }
}

/// The known key with the smallest edit distance.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known.map(|known| (distance(key, known), known)).min().map_or("", |(_, name)| name)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// An error with its causes, outermost first: for those who see no more of it than a text.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keys::{MS, duration, quoted, show, some_text};
    use crate::{duration_key, list_key, number_key, switch_key, text_key};

    #[derive(Debug, Clone, PartialEq)]
    struct Shop {
        name: Option<String>,
        tills: u16,
        opens: Duration,
        open: bool,
        goods: Vec<String>,
        token: String,
    }

    impl Default for Shop {
        fn default() -> Self {
            let goods = vec!["tea".to_owned()];
            Self { name: None, tills: 2, opens: Duration::from_secs(9), open: true, goods, token: "t".to_owned() }
        }
    }

    impl Settings for Shop {
        const PROGRAM: &'static str = "shop";
        const PRINTS: &'static str = "shop --print-config";
        const VARIABLES: &'static str = "SHOP";
        const FILE_VARIABLE: &'static str = "SHOP_CONFIG";
        const HEADING: &'static str = "shop";
        const KEYS: &'static [Key<Self>] = &[
            number_key!("till.count", tills: u16, 1, 9, "Tills."),
            duration_key!("till.opens", opens, MS, Duration::from_secs(10), "When."),
            switch_key!("till.open", open, "Whether."),
            text_key!("name", name, some_text, some, "What it is called."),
            list_key!("goods", goods, "What it has."),
            Key {
                secret: true,
                ..text_key!(
                    "token",
                    token,
                    |text: &str| if text.len() < 9 { Ok(text.to_owned()) } else { Err("short".to_owned()) },
                    "Secret."
                )
            },
        ];
        fn validate(&self) -> Result<(), ConfigError> {
            if self.open || self.tills > 1 { Ok(()) } else { Err(ConfigError::Conflict("one till, and shut".into())) }
        }
    }

    fn load(
        flags: &[(&'static str, &str)],
        environment: &[(&str, &str)],
        text: &str,
    ) -> Result<Loaded<Shop>, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("shop.toml");
        std::fs::write(&path, text).expect("written");
        let flags = flags.iter().map(|&(key, value)| (key, value.to_owned())).collect();
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Loaded::from_sources(&flags, environment, Some(&path))
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let text = "name = \"file\"\n[till]\ncount = 3\nopens = \"3s\"\n";
        let environment = [("SHOP_TILL_COUNT", "4"), ("SHOP_TILL_OPENS", "4s")];
        let loaded = load(&[("till.count", "5")], &environment, text).expect("good");
        let shop = Shop { name: Some("file".into()), tills: 5, opens: Duration::from_secs(4), ..Shop::default() };
        assert_eq!(loaded.config, shop);
        let printed = loaded.to_toml();
        for line in [
            "count = 5 # flag --till-count",
            "opens = \"4s\" # environment SHOP_TILL_OPENS",
            "open = true # default",
            "name = \"file\" # file ",
        ] {
            assert!(printed.contains(line), "{line} in\n{printed}");
        }
    }

    #[test]
    fn flag_of_a_switch_alone_is_true() {
        let parsed = |args: &[&str]| {
            let command = clap::Command::new("shop").args(arguments::<Shop>());
            let matches = command.try_get_matches_from([&["shop"], args].concat()).expect("known flags");
            matches.get_one::<String>("till.open").cloned()
        };
        assert_eq!(parsed(&[]), None);
        assert_eq!(parsed(&["--till-open"]).as_deref(), Some("true"));
        assert_eq!(parsed(&["--till-open", "--name", "x"]).as_deref(), Some("true"));
        for said in [&["--till-open", "false"][..], &["--till-open=false"]] {
            assert_eq!(parsed(said).as_deref(), Some("false"));
        }
    }

    #[test]
    fn what_is_printed_is_read_again_as_the_same() {
        let flags = [("goods", "a, b"), ("till.open", "false")];
        for loaded in [load(&[], &[], "").expect("defaults"), load(&flags, &[], "goods = [\"x\"]").expect("good")] {
            let again = load(&[], &[], &loaded.to_toml()).expect("its own text");
            assert_eq!(again.config, loaded.config);
        }
        assert_eq!(load(&[], &[], "goods = [\"x\", \"y\"]").expect("good").config.goods, ["x", "y"]);
    }

    #[test]
    fn what_is_wrong_is_refused_with_what_is_allowed() {
        let told = |flags: &[(&'static str, &str)], text: &str| load(flags, &[], text).expect_err("wrong").to_string();
        let cases = [
            ("till.count", "10", "`till.count` (flag --till-count) is \"10\": a whole number from 1 to 9"),
            ("till.opens", "soon", "a duration from 1ms to 10s, as 150ms"),
            ("till.open", "perhaps", "true or false"),
            ("name", "", "not empty"),
            ("goods", "a,,b", "separated by commas"),
        ];
        for (key, value, expected) in cases {
            let error = told(&[(key, value)], "");
            assert!(error.contains(expected), "{error}");
        }
        let unknown = told(&[], "[till]\ncont = 3");
        assert!(unknown.contains("`till.cont`; did you mean `till.count`? `shop --print-config` lists"), "{unknown}");
        assert!(matches!(load(&[], &[], "name ="), Err(ConfigError::NotToml { .. })));
        assert!(matches!(load(&[], &[], "[till]\nopen = false\ncount = 1"), Err(ConfigError::Conflict(_))));
        let missing = Loaded::<Shop>::from_sources(&BTreeMap::new(), [], Some(Path::new("/no/such/file")));
        assert!(matches!(missing, Err(ConfigError::Unreadable { .. })));
    }

    #[test]
    fn mistyped_variable_is_an_error_with_the_nearest_name() {
        let error = load(&[], &[("SHOP_TILL_CONT", "s3cret")], "").expect_err("no such key").to_string();
        assert!(error.contains("SHOP_TILL_CONT; did you mean SHOP_TILL_COUNT? `shop --print-config`"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
        let error = load(&[], &[("SHOP_CONFIGS", "x")], "").expect_err("no such key").to_string();
        assert!(error.contains("did you mean SHOP_CONFIG?"), "{error}");
    }

    #[test]
    fn variables_of_other_programs_and_service_links_pass() {
        let others = [
            ("SHOPS", "x"),
            ("PATH", "x"),
            ("SHOP_CONFIG", "x"),
            ("SHOP_SERVICE_HOST", "10.0.0.1"),
            ("SHOP_SERVICE_PORT_GRPC", "7101"),
            ("SHOP_PORT", "tcp://10.0.0.1:7101"),
            ("SHOP_PORT_7101_TCP", "tcp://10.0.0.1:7101"),
            ("SHOP_PORT_7101_TCP_PROTO", "tcp"),
            ("SHOP_PORT_7101_TCP_ADDR", "10.0.0.1"),
        ];
        load(&[], &others, "").expect("none of them is the shop's");
        let refused = variables::check::<Shop>([("SHOP_PORT_TCP", "x")]);
        assert!(matches!(refused, Err(ConfigError::UnknownVariable { .. })), "no service link: {refused:?}");
    }

    #[test]
    fn a_secret_is_not_told_when_it_is_wrong() {
        let error = load(&[("token", "s3cret-and-too-long")], &[], "").expect_err("too long").to_string();
        assert!(error.contains("`token` (flag --token)") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn numbers_and_durations_take_every_spelling_that_is_taught() {
        assert_eq!(keys::number("1_000", 0, 1_000), Ok(1_000));
        assert_eq!(duration("150ms", MS, Duration::MAX).map(show), Ok("150ms".into()));
        assert_eq!(quoted("a\"b").as_deref(), Some("'a\"b'"));
    }
}
