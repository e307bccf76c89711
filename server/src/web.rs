//! The pages: HTML for people, made from the same operations that the API has.
//!
//! Each page declares what it needs, as operations of the API do, and is let through by one guard. Pages are rendered on
//! the server and work without script; script adds what changes while a page is open. Nothing comes from other hosts.

mod apidocs;
mod assets;
mod audit;
mod cluster;
mod documents;
mod form;
mod groups;
mod guard;
mod home;
mod live;
mod login;
mod merge;
mod moment;
mod page;
mod profile;
mod record;
mod roles;
mod setup;
mod spaces;
mod templates;
mod tokens;
mod users;
mod variables;
mod zone_map;
mod zones;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get};

pub(crate) use self::home::nothing;
use crate::api::Shared;
use crate::api::operation::Needs;

/// One page, or one change that a form asks for.
#[derive(Clone, Copy, Debug)]
struct Page {
    path: &'static str,
    needs: Needs,
    handler: fn() -> MethodRouter<Shared>,
}

fn page(path: &'static str, needs: Needs, handler: fn() -> MethodRouter<Shared>) -> Page {
    Page { path, needs, handler }
}

fn pages() -> Vec<Page> {
    let parts = [
        setup::pages(),
        login::pages(),
        home::pages(),
        spaces::pages(),
        tokens::pages(),
        cluster::pages(),
        live::pages(),
        users::pages(),
        groups::pages(),
        roles::pages(),
        templates::pages(),
        variables::pages(),
        zones::pages(),
        profile::pages(),
        audit::pages(),
        documents::pages(),
        apidocs::pages(),
    ];
    parts.into_iter().flatten().collect()
}

/// The routes of all pages.
pub(crate) fn router(api: &Shared) -> Router<Shared> {
    let statics = Router::new().route("/static/{name}", get(assets::serve));
    let pages = pages().into_iter().map(Arc::new).fold(statics, |router, page| {
        let guarded = (page.handler)().layer(from_fn_with_state((Arc::clone(api), Arc::clone(&page)), guard::admit));
        router.route(page.path, guarded)
    });
    pages.layer(from_fn(guard::secure))
}
