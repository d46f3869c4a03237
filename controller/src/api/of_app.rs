//! What the resources of an app have in common: each is found and listed through the app it belongs to, is seen by whoever
//! sees the app's space, and may have labels. A resource says what is its own in [`OfApp`] and the traits above it, and
//! routes the handlers here.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde::Serialize;
use slipway_api_types::Page;
use uuid::Uuid;

use super::apps::{find, owner};
use super::auth_extract::Caller;
use super::body::{JsonBody, MetadataBody};
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::permissions::SpaceAction;
use crate::context::Context;
use crate::domain::list::ListOptions;
use crate::domain::metadata::MetadataChange;
use crate::store::Store;
use crate::store::apps::AppRow;
use crate::store::list::Visible;
use crate::store::metadata::Labelled;

/// A row of a resource that belongs to an app.
pub(super) trait OfApp: Sized + Send + 'static {
    /// What errors call it: `Package`.
    const NAME: &'static str;

    /// Its own guid.
    fn guid(&self) -> Uuid;

    /// The app's guid.
    fn app(&self) -> Uuid;

    /// The row with this guid.
    fn get(store: &Store, guid: Uuid) -> impl Future<Output = sqlx::Result<Option<Self>>> + Send;
}

/// One that clients see without a further question to the database.
pub(super) trait Shown: OfApp {
    /// As clients see it.
    type View: Serialize + Send;

    /// Whether a list of one app shows more to those who may read the app's secrets ([`Shown::show_whole`]).
    const HAS_SECRETS: bool = false;

    /// As clients see it.
    fn show(self, base: &BaseUrl) -> ApiResult<Self::View>;

    /// With the secrets.
    fn show_whole(self, base: &BaseUrl) -> ApiResult<Self::View> {
        self.show(base)
    }
}

/// One that is listed, over all apps and within one.
pub(super) trait Listed: Shown {
    /// What the list understands.
    const LIST: ListSpec;
    /// Its place under `/v3` and under an app: `packages`.
    const PATH: &'static str;

    /// A page, and how many there are in all; `app` limits it to one.
    fn page(
        store: &Store,
        options: &ListOptions,
        visible: &Visible,
        app: Option<Uuid>,
    ) -> impl Future<Output = sqlx::Result<(Vec<Self>, u64)>> + Send;
}

/// One of which clients change nothing but the metadata.
pub(super) trait Relabelled: Shown {
    /// Where its rows are.
    const TABLE: Labelled;
}

/// [`OfApp`] for a row with `guid` and `app_guid`: its name, and how the store finds it.
macro_rules! of_app {
    ($row:ty, $name:literal, $get:ident) => {
        impl $crate::api::of_app::OfApp for $row {
            const NAME: &'static str = $name;

            fn guid(&self) -> uuid::Uuid {
                self.guid
            }

            fn app(&self) -> uuid::Uuid {
                self.app_guid
            }

            async fn get(store: &$crate::store::Store, guid: uuid::Uuid) -> sqlx::Result<Option<Self>> {
                store.$get(guid).await
            }
        }
    };
}
pub(super) use of_app;

/// [`Listed`]: its place, how the store lists it (with what that asks besides options, visible spaces and app), and what
/// the list understands.
macro_rules! listed {
    ($row:ty, $path:literal, $list:ident($($more:expr)?), $spec:expr) => {
        impl $crate::api::of_app::Listed for $row {
            const LIST: $crate::api::list::ListSpec = $spec;
            const PATH: &'static str = $path;

            async fn page(
                store: &$crate::store::Store,
                options: &$crate::domain::list::ListOptions,
                visible: &$crate::store::list::Visible,
                app: Option<uuid::Uuid>,
            ) -> sqlx::Result<(Vec<Self>, u64)> {
                store.$list(options, visible, app $(, $more)?).await
            }
        }
    };
}
pub(super) use listed;

/// The row of a path, if the caller may do this with it.
///
/// # Errors
/// 404 `<name> not found`, 403.
pub(super) async fn by_guid<R: OfApp>(
    context: &Context,
    caller: &Caller,
    guid: &str,
    action: SpaceAction,
) -> ApiResult<R> {
    with_app(context, caller, guid, action).await.map(|(row, _)| row)
}

/// The same with the app.
///
/// # Errors
/// As [`by_guid`].
pub(super) async fn with_app<R: OfApp>(
    context: &Context,
    caller: &Caller,
    guid: &str,
    action: SpaceAction,
) -> ApiResult<(R, AppRow)> {
    let guid = super::guid(guid, R::NAME)?;
    let row = R::get(&context.store, guid).await?.ok_or_else(|| ApiError::not_found(R::NAME))?;
    let app = owner(context, caller, row.app(), R::NAME, action).await?;
    Ok((row, app))
}

/// `GET /v3/<path>`.
pub(super) async fn list<R: Listed>(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<R::View>>> {
    let visible = caller.visible_spaces(&context).await?;
    page::<R>(&context, &base, query.as_deref(), &format!("/v3/{}", R::PATH), &visible, None, R::show).await
}

/// `GET /v3/apps/{guid}/<path>`.
pub(super) async fn list_of_app<R: Listed>(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<R::View>>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let path = format!("/v3/apps/{}/{}", app.guid, R::PATH);
    let whole = R::HAS_SECRETS
        && caller
            .require_space(&context, app.space_guid, "App", SpaceAction::Read)
            .await?
            .allows(SpaceAction::ReadSecrets);
    let show = if whole { R::show_whole } else { R::show };
    page::<R>(&context, &base, query.as_deref(), &path, &Visible::All, Some(app.guid), show).await
}

async fn page<R: Listed>(
    context: &Context,
    base: &BaseUrl,
    query: Option<&str>,
    path: &str,
    visible: &Visible,
    app: Option<Uuid>,
    show: fn(R, &BaseUrl) -> ApiResult<R::View>,
) -> ApiResult<Json<Page<R::View>>> {
    let query = ListQuery::parse(query, &R::LIST)?;
    let (rows, total) = R::page(&context.store, &query.options, visible, app).await?;
    let views = rows.into_iter().map(|row| show(row, base)).collect::<ApiResult<_>>()?;
    Ok(Json(query.page(base, path, total, views)))
}

/// `GET /v3/<path>/{guid}`.
pub(super) async fn one<R: Shown>(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Json<R::View>> {
    let row: R = by_guid(&context, &caller, &guid, SpaceAction::Read).await?;
    row.show(&base).map(Json)
}

/// `PATCH /v3/<path>/{guid}` with nothing but metadata.
pub(super) async fn relabel<R: Relabelled>(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<MetadataBody>,
) -> ApiResult<Json<R::View>> {
    let row: R = by_guid(&context, &caller, &guid, SpaceAction::Develop).await?;
    let change = MetadataChange::check(body.metadata)?;
    context.store.relabel(R::TABLE, row.guid(), &change).await?;
    let row = R::get(&context.store, row.guid()).await?.ok_or_else(|| ApiError::not_found(R::NAME))?;
    // Who may change it may read it.
    row.show_whole(&base).map(Json)
}
