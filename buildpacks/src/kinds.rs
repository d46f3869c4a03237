//! What an app looks like that no buildpack takes, and what its developer can do here.

use crate::source::Source;

/// A language or tool, the names at the app's top that tell of it (`*.x` for an ending), and the way here.
struct Kind {
    name: &'static str,
    marks: &'static [&'static str],
    remedy: Remedy,
}

enum Remedy {
    /// A program that can be compiled at home.
    Compile,
    /// It needs a runtime, which a buildpack brings.
    Buildpack,
    /// In words.
    Text(&'static str),
}

const KINDS: [Kind; 14] = [
    Kind { name: "Go", marks: &["go.mod", "Gopkg.lock", "*.go"], remedy: Remedy::Compile },
    Kind { name: "Rust", marks: &["Cargo.toml"], remedy: Remedy::Compile },
    Kind {
        name: "Java",
        marks: &[
            "pom.xml",
            "build.gradle",
            "build.gradle.kts",
            "settings.gradle",
            "gradlew",
            "*.jar",
            "*.war",
            "WEB-INF/",
        ],
        remedy: Remedy::Buildpack,
    },
    Kind { name: "Scala", marks: &["build.sbt"], remedy: Remedy::Buildpack },
    Kind { name: "Clojure", marks: &["project.clj", "deps.edn"], remedy: Remedy::Buildpack },
    Kind { name: "Ruby", marks: &["Gemfile", "config.ru", "*.rb"], remedy: Remedy::Buildpack },
    Kind { name: "PHP", marks: &["composer.json", "*.php"], remedy: Remedy::Buildpack },
    Kind { name: ".NET", marks: &["*.csproj", "*.fsproj", "*.sln", "*.slnx"], remedy: Remedy::Buildpack },
    Kind { name: "Elixir", marks: &["mix.exs"], remedy: Remedy::Buildpack },
    Kind { name: "Deno", marks: &["deno.json", "deno.jsonc"], remedy: Remedy::Buildpack },
    Kind { name: "Perl", marks: &["cpanfile", "Makefile.PL", "*.pl"], remedy: Remedy::Buildpack },
    Kind {
        name: "Python",
        marks: &["*.py"],
        remedy: Remedy::Text("Add a requirements.txt, which may be empty, and it is taken as Python."),
    },
    Kind {
        name: "Node.js",
        marks: &["*.js", "*.mjs", "*.ts"],
        remedy: Remedy::Text("Add a package.json (`npm init -y`), and it is taken as Node.js."),
    },
    Kind {
        name: "a container image",
        marks: &["Dockerfile", "Containerfile", "docker-compose.yml", "compose.yaml"],
        remedy: Remedy::Text("Images are not built here: push the app's source to a buildpack (option -b)."),
    },
];

/// Names that are looked through.
const MOST: usize = 1000;

fn marks(mark: &str, name: &str) -> bool {
    match mark.strip_prefix('*') {
        Some(ending) => name.len() > ending.len() && name.ends_with(ending),
        None => name == mark,
    }
}

/// What the source looks like and the way here, in one or two sentences; `None` when nothing is known.
#[must_use]
pub fn looks_like(source: &dyn Source) -> Option<String> {
    let names = source.top(MOST);
    language(&names).or_else(|| program(source, &names))
}

/// What needs no build: a Procfile, or a program or script at the top.
fn program(source: &dyn Source, names: &[String]) -> Option<String> {
    if source.has("Procfile") {
        return Some(
            "There is a Procfile and nothing to install: push it with `-b binary_buildpack`, which starts what the \
             Procfile says."
                .to_owned(),
        );
    }
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    let runs = |name: &str| {
        name.ends_with(".sh") || [&b"#!"[..], b"\x7fELF"].iter().any(|magic| source.starts_with(name, magic))
    };
    let file = names.iter().find(|name| plain(name) && runs(name))?;
    Some(format!(
        "If {file} is the whole app, push it with `-b binary_buildpack -c ./{file}`: nothing is installed, and it is \
         started as it is."
    ))
}

fn language(names: &[String]) -> Option<String> {
    KINDS.iter().find_map(|kind| {
        let found = kind.marks.iter().find_map(|mark| names.iter().find(|name| marks(mark, name)))?;
        let name = kind.name;
        Some(match kind.remedy {
            Remedy::Text(words) => format!("This looks like {name} ({found}). {words}"),
            Remedy::Compile => format!(
                "This looks like {name} ({found}). There is no {name} buildpack here: compile it for Linux and push the \
                 program with -b binary_buildpack -c ./PROGRAM, or name a buildpack by its address (-b)."
            ),
            Remedy::Buildpack => format!(
                "This looks like {name} ({found}). There is no {name} buildpack here: name one by its address (-b), or ask \
                 the operator to install one."
            ),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Listing;

    #[test]
    fn a_language_without_a_buildpack_is_named() {
        for (file, words) in [
            ("go.mod", "Go (go.mod)"),
            ("cmd/main.go", ""),
            ("pom.xml", "Java (pom.xml)"),
            ("demo-1.0.jar", "Java (demo-1.0.jar)"),
            ("index.php", "PHP (index.php)"),
            ("app.py", "requirements.txt"),
            ("server.js", "package.json"),
            ("Dockerfile", "not built here"),
            ("notes.txt", ""),
            (".php", ""),
        ] {
            let found = looks_like(&Listing::of(&[(file, "")])).unwrap_or_default();
            assert!(found.contains(words) && found.is_empty() == words.is_empty(), "{file}: {found}");
        }
        let both = looks_like(&Listing::of(&[("Dockerfile", ""), ("go.mod", ""), ("tool.py", "")])).unwrap();
        assert!(both.contains("Go"), "the language says more than a Dockerfile: {both}");
    }

    #[test]
    fn sources_that_need_no_build_are_pointed_to_their_buildpack() {
        let advice = |files: &[(&str, &str)]| looks_like(&Listing::of(files)).unwrap_or_default();
        let found = advice(&[("Procfile", "web: ./run.sh"), ("run.sh", "#!/bin/sh\n")]);
        assert!(found.contains("`-b binary_buildpack`,") && found.contains("Procfile"), "{found}");
        for (file, text) in [("run.sh", "echo"), ("start", "#!/bin/sh\n"), ("server", "\x7fELF")] {
            let found = advice(&[("notes.txt", ""), (file, text)]);
            assert!(found.contains(&format!("`-b binary_buildpack -c ./{file}`")), "{file}: {found}");
        }
        assert_eq!(advice(&[("my script.sh", "#!/bin/sh\n")]), "", "a name that a shell would take apart");
        assert!(advice(&[("main.go", ""), ("run.sh", "")]).contains("Go"), "a language says more than a script");
    }
}
