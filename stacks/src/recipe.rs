//! What a layer is made from. The recipes are part of the program.

use serde::Deserialize;

const RECIPES: &[(&str, &str)] = &[
    ("debian12", include_str!("../recipes/debian12.toml")),
    ("cflinuxfs4", include_str!("../recipes/cflinuxfs4.toml")),
    ("node-22", include_str!("../recipes/node-22.toml")),
    ("node-22-headers", include_str!("../recipes/node-22-headers.toml")),
    ("cpython-3.11", include_str!("../recipes/cpython-3.11.toml")),
    ("nginx-1.22", include_str!("../recipes/nginx.toml")),
    ("build-debian12", include_str!("../recipes/build.toml")),
];
const SOURCES: &str = include_str!("../recipes/sources.toml");

/// One layer's recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What an app is bound to.
    pub line: String,
    /// `node`, `python`.
    pub name: String,
    /// `stack`, `compat`, `runtime`, `build`.
    pub kind: String,
    /// Lines it is made over, lowest first.
    #[serde(default)]
    pub over: Vec<String>,
    /// The package whose version is the layer's; the stack takes Debian's.
    #[serde(default)]
    pub version_of: Option<String>,
    /// Debian packages.
    #[serde(default)]
    pub deb: Option<Deb>,
    /// npm packages.
    #[serde(default)]
    pub npm: Vec<Npm>,
    /// Symbolic links.
    #[serde(default)]
    pub link: Vec<Link>,
    /// Shell, run inside after the packages.
    #[serde(default)]
    pub script: String,
    /// The whole text, for the key of the cache.
    #[serde(skip)]
    pub text: &'static str,
}

/// Packages of one Debian suite, with its security and update suites, through signed apt.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deb {
    /// `bookworm`.
    pub suite: String,
    /// Names; dependencies come along, recommendations do not.
    pub packages: Vec<String>,
}

/// Parts of one npm package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Npm {
    /// Its name.
    pub package: String,
    /// Semantic version range; the highest release inside is taken, and the registry's digest of it is checked.
    pub range: String,
    /// What goes where.
    pub put: Vec<Put>,
}

/// Copies a path of a package, with all below it, into the layer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// Inside the package; empty = all.
    pub from: String,
    /// Inside the layer.
    pub to: String,
}

/// A symbolic link.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Inside the layer.
    pub path: String,
    /// As written.
    pub to: String,
}

/// Where packages come from when the host does not say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sources {
    pub(crate) npm_registry: String,
}

/// A recipe of this program that cannot be read: a mistake in the program.
#[derive(Debug, thiserror::Error)]
#[error("the recipe {name} is not readable")]
pub struct BadRecipe {
    name: &'static str,
    #[source]
    source: toml::de::Error,
}

/// All recipes, each after those it is made over.
///
/// # Errors
/// When one does not parse.
pub fn all() -> Result<Vec<Recipe>, BadRecipe> {
    RECIPES
        .iter()
        .map(|(name, text)| {
            let recipe: Recipe = toml::from_str(text).map_err(|source| BadRecipe { name, source })?;
            Ok(Recipe { text, ..recipe })
        })
        .collect()
}

pub(crate) fn sources() -> Result<Sources, BadRecipe> {
    toml::from_str(SOURCES).map_err(|source| BadRecipe { name: "sources", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_sound() {
        let recipes = all().unwrap();
        sources().unwrap();
        for (at, recipe) in recipes.iter().enumerate() {
            assert_eq!(recipe.line, RECIPES[at].0);
            for below in &recipe.over {
                assert!(recipes[..at].iter().any(|other| other.line == *below), "{} over {below}", recipe.line);
            }
            assert!(["stack", "compat", "runtime", "build"].contains(&recipe.kind.as_str()));
            assert_eq!(recipe.kind == "stack", recipe.over.is_empty(), "{}", recipe.line);
            if let Some(deb) = &recipe.deb {
                let mut names = deb.packages.clone();
                names.sort();
                names.dedup();
                assert_eq!(names.len(), deb.packages.len(), "{}: a package is named twice", recipe.line);
            }
            for npm in &recipe.npm {
                semver::VersionReq::parse(&npm.range).unwrap();
            }
        }
    }

    #[test]
    fn each_compiled_library_has_its_runtime_in_the_stack() {
        // A build layer hides missing libraries: a binary built against one would fail at run time.
        let recipes = all().unwrap();
        let packages = |line: &str| {
            recipes.iter().find(|recipe| recipe.line == line).and_then(|recipe| recipe.deb.clone()).unwrap().packages
        };
        let stack = packages("debian12");
        for dev in packages("build-debian12").iter().filter(|name| name.starts_with("lib") && name.ends_with("-dev")) {
            let stem: String = dev
                .trim_end_matches("-dev")
                .trim_end_matches("-openssl")
                .trim_end_matches(|c: char| c.is_ascii_digit())
                .into();
            let stem = match stem.as_str() {
                "libc" | "libncurses" => continue, // libc6 is essential; ncurses' twin is libncursesw6
                "libjpeg" => "libjpeg",
                other => other.trim_end_matches('-'),
            };
            assert!(stack.iter().any(|name| name.starts_with(stem)), "{dev}: no {stem}* in the stack");
        }
    }
}
