//! Error codes of the v3 API: number, title and status, as clients know them.

use serde::{Deserialize, Serialize};

/// Body of every answer with status 400 and above.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApiErrorBody {
    /// Usually one; clients lose their special handling when there are more.
    pub errors: Vec<ApiErrorEntry>,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiErrorEntry {
    /// Number.
    pub code: u32,
    /// `CF-…`.
    pub title: String,
    /// What happened, which value, what to do.
    pub detail: String,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $title:literal, $status:literal;)+) => {
        /// Every code that Slipway sends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name),+ }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The number in `code`.
            #[must_use]
            pub fn code(self) -> u32 { match self { $(Self::$name => $code),+ } }
            /// The text in `title`.
            #[must_use]
            pub fn title(self) -> &'static str { match self { $(Self::$name => $title),+ } }
            /// The HTTP status.
            #[must_use]
            pub fn status(self) -> u16 { match self { $(Self::$name => $status),+ } }
        }
    };
}

codes! {
    /// The token is forged, malformed, expired or revoked.
    InvalidAuthToken = 1000, "CF-InvalidAuthToken", 401;
    /// The body is not JSON (or YAML).
    MessageParseError = 1001, "CF-MessageParseError", 400;
    /// The request makes no sense.
    BadRequest = 1004, "CF-BadRequest", 400;
    /// No such endpoint.
    NotFound = 10000, "CF-NotFound", 404;
    /// Our own fault.
    ServerError = 10001, "UnknownError", 500;
    /// No token.
    NotAuthenticated = 10002, "CF-NotAuthenticated", 401;
    /// The token's user may not do this.
    NotAuthorized = 10003, "CF-NotAuthorized", 403;
    /// The request is not valid.
    InvalidRequest = 10004, "CF-InvalidRequest", 400;
    /// A query parameter is unknown or malformed.
    BadQueryParameter = 10005, "CF-BadQueryParameter", 400;
    /// The token lacks a scope.
    InsufficientScope = 10007, "CF-InsufficientScope", 403;
    /// Well-formed, but not possible.
    UnprocessableEntity = 10008, "CF-UnprocessableEntity", 422;
    /// No such resource, or not visible.
    ResourceNotFound = 10010, "CF-ResourceNotFound", 404;
    /// A part that is needed is away.
    ServiceUnavailable = 10015, "CF-ServiceUnavailable", 503;
    /// The disk of the object store is full up to its reserve. Not of Cloud Foundry, which has no such refusal.
    InsufficientStorage = 10507, "CF-InsufficientStorage", 507;
    /// The organization is suspended.
    OrgSuspended = 10017, "CF-OrgSuspended", 403;
    /// A broker operation is under way.
    AsyncServiceInstanceOperationInProgress = 60016, "CF-AsyncServiceInstanceOperationInProgress", 409;
    /// No broker can be asked what a binding was made with.
    ServiceFetchBindingParametersNotSupported = 90007, "CF-ServiceFetchBindingParametersNotSupported", 400;
    /// No broker can be asked what an instance was made with.
    ServiceFetchInstanceParametersNotSupported = 120004, "CF-ServiceFetchInstanceParametersNotSupported", 400;
    /// A second finished upload of a package.
    PackageBitsAlreadyUploaded = 150004, "CF-PackageBitsAlreadyUploaded", 400;
    /// Another staging of the package runs.
    StagingInProgress = 170017, "CF-StagingInProgress", 422;
    /// A job found the buildpack's name taken.
    BuildpackNameStackLifecycleTaken = 290000, "CF-BuildpackNameStackLifecycleTaken", 422;
    /// A job found the buildpack unusable.
    BuildpackInvalid = 290003, "CF-BuildpackInvalid", 400;
    /// A feature flag forbids it.
    FeatureDisabled = 330002, "CF-FeatureDisabled", 403;
    /// The buildpack's stack is not the one in its manifest.
    BuildpackStacksDontMatch = 390011, "CF-BuildpackStacksDontMatch", 422;
    /// No such stack.
    BuildpackStackDoesNotExist = 390012, "CF-BuildpackStackDoesNotExist", 422;
    /// Not a zip.
    BuildpackZipError = 390013, "CF-BuildpackZipError", 422;
    /// Deployments are switched off.
    DeploymentsDisabled = 390014, "CF-DeploymentsDisabled", 403;
    /// No scaling while a deployment runs.
    ScaleDisabledDuringDeployment = 390016, "CF-ScaleDisabledDuringDeployment", 422;
    /// No process update while a deployment runs.
    ProcessUpdateDisabledDuringDeployment = 390017, "CF-ProcessUpdateDisabledDuringDeployment", 422;
    /// No stop while a deployment runs.
    StopDisabledDuringDeployment = 390024, "CF-StopDisabledDuringDeployment", 422;
    /// The service instance is bound to the route already.
    ServiceInstanceAlreadyBoundToSameRoute = 130008, "CF-ServiceInstanceAlreadyBoundToSameRoute", 422;
}

impl ErrorCode {
    /// An entry with this code.
    pub fn entry(self, detail: impl Into<String>) -> ApiErrorEntry {
        ApiErrorEntry { code: self.code(), title: self.title().to_owned(), detail: detail.into() }
    }
}
