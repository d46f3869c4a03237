//! axum's router, remembering its paths.
//!
//! A set of endpoints can be asked what is in it: the table of roles (`tests/roles`) goes through every path that is
//! registered here, so that an endpoint whose rights nobody has thought of fails the suite.

use axum::routing::MethodRouter;

/// Endpoints under construction. Takes what [`axum::Router`] takes.
#[derive(Clone, Debug)]
pub struct Router<S> {
    inner: axum::Router<S>,
    paths: Vec<&'static str>,
}

impl<S: Clone + Send + Sync + 'static> Router<S> {
    /// Without any endpoint.
    #[must_use]
    pub fn new() -> Self {
        Self { inner: axum::Router::new(), paths: Vec::new() }
    }

    /// Adds the methods of one path (`/v3/apps/{guid}`).
    ///
    /// # Panics
    /// As axum: when the path is malformed, or a method of it is there already.
    #[must_use]
    pub fn route(mut self, path: &'static str, methods: MethodRouter<S>) -> Self {
        if !self.paths.contains(&path) {
            self.paths.push(path);
        }
        self.inner = self.inner.route(path, methods);
        self
    }

    /// Adds the endpoints of another set.
    ///
    /// # Panics
    /// As axum: when both have the same method of the same path.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        for path in other.paths {
            if !self.paths.contains(&path) {
                self.paths.push(path);
            }
        }
        self.inner = self.inner.merge(other.inner);
        self
    }

    /// The paths, each once, in the order in which they were added.
    #[must_use]
    pub fn paths(&self) -> &[&'static str] {
        &self.paths
    }

    /// What serves them.
    pub fn into_inner(self) -> axum::Router<S> {
        self.inner
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Router<S> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};

    use super::*;

    #[test]
    fn each_path_is_remembered_once() {
        let reading: Router<()> = Router::new().route("/a", get(|| async {})).route("/b", get(|| async {}));
        let writing = Router::new().route("/a", post(|| async {}));
        assert_eq!(reading.merge(writing).paths(), ["/a", "/b"]);
    }
}
