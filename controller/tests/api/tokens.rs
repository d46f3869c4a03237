//! Tokens: who gets one, and which are refused.

use crate::support::{ADMIN_PASSWORD, TestController, error};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_controller::auth::rs256::SigningKey;
use slipway_controller::auth::{keys, tokens};

#[tokio::test]
async fn discovery_needs_no_token_and_follows_the_request() {
    let controller = TestController::start().await;
    let client = controller.client(None);
    let (status, root) = client
        .send(
            client
                .request(Method::GET, "/")
                .header("host", "api.slipway.test:8443")
                .header("x-forwarded-proto", "https"),
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(root["links"]["login"]["href"], "https://login.slipway.test:8443");
    assert_eq!(root["links"]["log_cache"]["href"], "https://log-cache.slipway.test:8443");
    assert_eq!(root["links"]["cloud_controller_v3"]["href"], "https://api.slipway.test:8443/v3");
    assert_eq!(root["links"]["cloud_controller_v3"]["meta"]["version"], "3.211.0");
    let (_, login) = client.get("/login").await;
    assert_eq!(login["prompts"]["username"], json!(["text", "Email"]));
    assert_eq!(login["prompts"]["password"].as_array().map(Vec::len), Some(2));
    assert_eq!(client.get("/v3/info").await.0, StatusCode::OK);
    assert!(client.get("/v3").await.1["links"]["apps"]["href"].is_string());
    let (status, body) = client.get("/v3/nonsense").await;
    assert_eq!((status, error(&body)), (StatusCode::NOT_FOUND, (10000, "Unknown request".to_owned())));
    let (status, body) = client.delete("/v3/info").await;
    assert_eq!((status, error(&body).0), (StatusCode::NOT_FOUND, 10000));
}

#[tokio::test]
async fn a_password_gives_a_token_and_a_refresh_token_that_lasts() {
    let controller = TestController::start().await;
    let (status, answer) = controller
        .token(&[("grant_type", "password"), ("username", "admin"), ("password", ADMIN_PASSWORD), ("scope", "")])
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["token_type"], "bearer");
    let refresh = answer["refresh_token"].as_str().expect("a refresh token");
    for _ in 0..2 {
        let (status, again) = controller.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
        assert_eq!(status, StatusCode::OK, "{again}");
        assert_eq!(again["refresh_token"], refresh);
        let client = controller.client(again["access_token"].as_str());
        assert_eq!(client.get("/v3/jobs/x").await.0, StatusCode::NOT_FOUND);
    }
    let payload = answer["access_token"].as_str().and_then(|token| token.split('.').nth(1)).expect("three parts");
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("json");
    assert_eq!(claims["user_name"], "admin");
    assert!(claims["user_id"].is_string() && claims["origin"].is_string() && claims["exp"].is_i64());
    assert!(claims["scope"].as_array().is_some_and(|scopes| scopes.contains(&json!("cloud_controller.admin"))));
}

#[tokio::test]
async fn wrong_passwords_and_what_is_no_grant_are_refused() {
    let controller = TestController::start().await;
    for user in ["admin", "nobody"] {
        let wrong = [("grant_type", "password"), ("username", user), ("password", "wrong")];
        let (status, body) = controller.token(&wrong).await;
        assert_eq!((status, body["error"].as_str()), (StatusCode::UNAUTHORIZED, Some("unauthorized")));
        assert_eq!(body["error_description"], "Bad credentials");
    }
    let hint =
        [("grant_type", "password"), ("username", "ann"), ("password", "x"), ("login_hint", r#"{"origin":"EA"}"#)];
    let (status, body) = controller.token(&hint).await;
    assert_eq!((status, body["error"].as_str()), (StatusCode::UNAUTHORIZED, Some("unauthorized")));
    let text = body["error_description"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("The origin provided in the login_hint does not match an active Identity Provider"),
        "{text}"
    );
    let (status, body) = controller.token(&[("grant_type", "telepathy")]).await;
    assert_eq!((status, body["error"].as_str()), (StatusCode::BAD_REQUEST, Some("unsupported_grant_type")));
    let (status, body) = controller.token(&[("grant_type", "refresh_token"), ("refresh_token", "forged")]).await;
    assert_eq!((status, body["error"].as_str()), (StatusCode::UNAUTHORIZED, Some("invalid_token")));
}

#[tokio::test]
async fn codes_and_tokens_cannot_be_reused_when_they_expire() {
    let controller = TestController::start().await;
    let context = &controller.context;
    // A code is over when it says so: not later, when nobody remembers any more that it was used.
    let signer = context.keys.signer(&context.store, &context.vault).await.expect("a key");
    let (cf, admin) = (controller.account("cf").await, controller.account("admin").await);
    let code = |jti: &str, ends_in: i64| {
        let claims = json!({
            "jti": jti, "sub": admin.guid, "cid": "cf", "rev_sig": format!("{}.{}", cf.generation, admin.generation),
            "scope": [], "iss": tokens::issuer(&context.config), "aud": "ssh-proxy",
            "exp": chrono::Utc::now().timestamp() + ends_in,
        });
        signer.sign(&claims).expect("signed")
    };
    assert!(tokens::redeem_code(context, &code("one", 3600)).await.is_ok());
    assert!(tokens::redeem_code(context, &code("two", -10)).await.is_err());

    // A token is accepted a little longer than it says,
    let subject = controller.subject(&[]).await;
    let mut claims = tokens::claims(&context.config, &subject, "password", 600);
    claims.exp = chrono::Utc::now().timestamp() - 1;
    let token = tokens::sign(context, &claims).await.expect("signed");
    let accepted = tokens::check(context, &token).await;
    let late = chrono::Utc::now().timestamp() - claims.exp;
    assert!(accepted.is_ok() || late >= tokens::LEEWAY_S.cast_signed(), "clocks may differ: {accepted:?}");
    // and is remembered as revoked for longer than that.
    let claims = tokens::claims(&context.config, &subject, "password", 600);
    let client = controller.client(Some(&tokens::sign(context, &claims).await.expect("signed")));
    assert_eq!(client.delete(&format!("/oauth/token/revoke/{}", claims.jti)).await.0, StatusCode::OK);
    let until: i64 =
        sqlx::query_scalar("select extract(epoch from expires_at)::bigint from revoked_token where jti = $1")
            .bind(&claims.jti)
            .fetch_one(&controller.database.pool)
            .await
            .expect("remembered");
    assert!(until > claims.exp + tokens::LEEWAY_S.cast_signed(), "it would be accepted again");
    // Somebody else logs out, which clears the memory of what is over, and of nothing else.
    sqlx::query("insert into revoked_token (jti, expires_at) values ('over', now() - interval '1 second')")
        .execute(&controller.database.pool)
        .await
        .expect("one that is over");
    let other = tokens::claims(&context.config, &subject, "password", 600);
    let client = controller.client(Some(&tokens::sign(context, &other).await.expect("signed")));
    assert_eq!(client.delete(&format!("/oauth/token/revoke/{}", other.jti)).await.0, StatusCode::OK);
    let remembered =
        async |jti: &str| context.store.token_standing(jti, &signer.kid, "cf", None).await.expect("an answer").revoked;
    assert_eq!((remembered(&claims.jti).await, remembered("over").await), (true, false));
}

#[tokio::test]
async fn refused_tokens() {
    let controller = TestController::start().await;
    let context = &controller.context;
    let subject = controller.subject(&["cloud_controller.admin"]).await;
    let claims = |life| tokens::claims(&context.config, &subject, "password", life);
    let good = tokens::sign(context, &claims(600)).await.expect("signed");
    let refused = async |token: &str| {
        let (status, body) = controller.client(Some(token)).get("/v3/jobs/x").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{body}");
        assert_eq!(error(&body).0, 1000);
        assert_eq!(body["errors"][0]["title"], "CF-InvalidAuthToken");
    };
    assert_eq!(controller.client(Some(&good)).get("/v3/jobs/x").await.0, StatusCode::NOT_FOUND);

    // None at all is another error.
    let (status, body) = controller.client(None).get("/v3/jobs/x").await;
    assert_eq!((status, error(&body).0), (StatusCode::UNAUTHORIZED, 10002));

    // Expired.
    let mut old = claims(0);
    old.exp -= 60;
    refused(&tokens::sign(context, &old).await.expect("signed")).await;

    // Another key under our name.
    let kid = jsonwebtoken::decode_header(&good).expect("a header").kid;
    let (_, private, _) = tokio::task::spawn_blocking(|| keys::generate().expect("a key")).await.expect("joins");
    let key = SigningKey::from_pem(private.as_bytes()).expect("a key");
    refused(&key.sign(kid.as_deref().expect("a name"), &claims(600)).expect("signed")).await;

    // The public key as an HMAC secret: the classic confusion of algorithms.
    let public = context.store.signing_keys().await.expect("keys").remove(0).public_pem;
    let header = json!({ "typ": "JWT", "alg": "HS256", "kid": kid }).to_string();
    let forged = [header, json!(claims(600)).to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, forged.as_bytes()));
    refused(&format!("{forged}.{tag}")).await;

    // No algorithm, changed claims, another audience or issuer, no token at all.
    let parts: Vec<&str> = good.split('.').collect();
    let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "kid": kid }).to_string());
    refused(&format!("{none}.{}.", parts[1])).await;
    let changed = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims(9000)).expect("json"));
    refused(&format!("{}.{changed}.{}", parts[0], parts[2])).await;
    let mut foreign = claims(600);
    foreign.iss = "https://uaa.elsewhere.test/oauth/token".to_owned();
    refused(&tokens::sign(context, &foreign).await.expect("signed")).await;
    let mut foreign = claims(600);
    foreign.aud = vec!["elsewhere".to_owned()];
    refused(&tokens::sign(context, &foreign).await.expect("signed")).await;
    refused("nonsense").await;

    // A code for ssh is no token.
    refused(&tokens::issue_code(context, &claims(600)).await.expect("a code")).await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_its_refresh_token_too() {
    let controller = TestController::start().await;
    let form = [("grant_type", "password"), ("username", "admin"), ("password", ADMIN_PASSWORD)];
    let (_, other) = controller.token(&form).await;
    let (_, answer) = controller.token(&form).await;
    let client = controller.client(answer["access_token"].as_str());
    let jti = answer["jti"].as_str().expect("a jti");
    let (status, _) = client.delete(&format!("/oauth/token/revoke/{}", other["jti"].as_str().expect("a jti"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(client.delete(&format!("/oauth/token/revoke/{jti}")).await.0, StatusCode::OK);
    assert_eq!(client.get("/v3/jobs/x").await.0, StatusCode::UNAUTHORIZED);
    let refresh = |token: &Value| token["refresh_token"].as_str().expect("a token").to_owned();
    let again =
        async |token: &str| controller.token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await.0;
    assert_eq!(again(&refresh(&answer)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(again(&refresh(&other)).await, StatusCode::OK);
}

#[tokio::test]
async fn a_retired_key_proves_and_signs_nothing_from_then_on() {
    let controller = TestController::start().await;
    let (context, pool) = (&controller.context, &controller.database.pool);
    let form = [("grant_type", "password"), ("username", "admin"), ("password", ADMIN_PASSWORD)];
    let (_, answer) = controller.token(&form).await;
    let client = controller.client(answer["access_token"].as_str());
    assert_eq!(client.get("/v3/jobs/x").await.0, StatusCode::NOT_FOUND);
    let claims = tokens::check(context, client.token.as_deref().expect("a token")).await.expect("good");
    let codes = [tokens::issue_code(context, &claims).await, tokens::issue_code(context, &claims).await];
    let [unused, code] = codes.map(|code| code.expect("a code"));
    assert!(tokens::redeem_code(context, &code).await.is_ok());

    // A second key, as a controller makes one that starts and finds none; then the first is retired.
    let retired = context.keys.signer(&context.store, &context.vault).await.expect("a key").kid;
    let (kid, private, public) = tokio::task::spawn_blocking(|| keys::generate().expect("a key")).await.expect("joins");
    let sealed = context.vault.seal(&keys::place(&kid), private.as_bytes()).expect("sealed");
    sqlx::query("insert into signing_key (kid, private_pem, public_pem) values ($1, $2, $3)")
        .bind(&kid)
        .bind(sealed)
        .bind(public)
        .execute(pool)
        .await
        .expect("a second key");
    assert_eq!(client.get("/v3/jobs/x").await.0, StatusCode::NOT_FOUND, "both are in force");
    sqlx::query("update signing_key set retired_at = now() where kid = $1")
        .bind(&retired)
        .execute(pool)
        .await
        .expect("retired");

    let (status, body) = client.get("/v3/jobs/x").await;
    assert_eq!((status, error(&body).0), (StatusCode::UNAUTHORIZED, 1000));
    assert!(tokens::redeem_code(context, &unused).await.is_err());
    let published = controller.client(None).get("/token_keys").await.1;
    let kids: Vec<_> = published["keys"].as_array().expect("keys").iter().map(|key| key["kid"].clone()).collect();
    assert_eq!(kids, [kid.as_str()]);
    // Whoever is logged in goes on: the refresh token is no matter of keys.
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", answer["refresh_token"].as_str().expect("one"))];
    let (_, answer) = controller.token(&refresh).await;
    let token = answer["access_token"].as_str().expect("a token");
    assert_eq!(jsonwebtoken::decode_header(token).expect("a header").kid, Some(kid));
    assert_eq!(controller.client(Some(token)).get("/v3/jobs/x").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn whoever_has_the_published_numbers_can_check_a_token() {
    let controller = TestController::start().await;
    let form = [("grant_type", "password"), ("username", "admin"), ("password", ADMIN_PASSWORD)];
    let (_, answer) = controller.token(&form).await;
    let token = answer["access_token"].as_str().expect("a token");
    let published = controller.client(None).get("/token_keys").await.1;
    let number = |name: &str| {
        let number = published["keys"][0][name].as_str().expect("a number");
        URL_SAFE_NO_PAD.decode(number).expect("base64")
    };
    let (message, signature) = token.rsplit_once('.').expect("a signature");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    ring::signature::RsaPublicKeyComponents { n: number("n"), e: number("e") }
        .verify(&ring::signature::RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &signature)
        .expect("the published key checks it");
}

#[tokio::test]
async fn codes_for_ssh_work_once() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let response = http
        .get(format!("{}/oauth/authorize?response_type=code&client_id=ssh-proxy", controller.base))
        .bearer_auth(admin.token.as_deref().expect("a token"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), StatusCode::FOUND);
    let location = response.headers()["location"].to_str().expect("text").to_owned();
    let code = location.split_once("code=").expect("a code").1;
    assert!(tokens::redeem_code(&controller.context, code).await.is_ok());
    assert!(tokens::redeem_code(&controller.context, code).await.is_err());
}

#[tokio::test]
async fn users_are_made_found_and_removed() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let body = json!({ "userName": "ann", "password": "the first one", "origin": "", "name": { "familyName": "A", "givenName": "N" },
                       "emails": [{ "value": "ann@x.test", "primary": true }] });
    let (status, ann) = admin.post("/Users", body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{ann}");
    assert_eq!(ann["origin"], "uaa");
    assert_eq!(admin.post("/Users", body).await.0, StatusCode::CONFLICT);
    let (_, found) = admin.get("/Users?filter=userName%20eq%20%22ANN%22%20and%20origin%20eq%20%22uaa%22").await;
    assert_eq!(found["resources"][0]["id"], ann["id"]);
    assert_eq!(admin.get("/Users?filter=userName").await.0, StatusCode::BAD_REQUEST);

    for (name, origin, text) in [
        (" ", "uaa", "A username must be provided."),
        ("", "ldap", "A username must be provided."),
        ("\u{1f600}", "uaa", r"Username must match pattern: [\p{L}+0-9+\-_.@'!]+"),
        ("`", "", r"Username must match pattern: [\p{L}+0-9+\-_.@'!]+"),
    ] {
        let (status, body) = admin.post("/Users", json!({ "userName": name, "origin": origin })).await;
        assert_eq!((status, body["error"].as_str()), (StatusCode::BAD_REQUEST, Some("invalid_scim_resource")));
        assert_eq!(body["error_description"], text);
    }
    for (name, origin) in [("Zoë+o'neil-1_@x.test!", "uaa"), ("a b`", "ldap"), ("ann", "ldap")] {
        let (status, body) = admin.post("/Users", json!({ "userName": name, "origin": origin })).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }

    let client = controller.login("ann", "the first one").await;
    assert_eq!(client.get("/Users?filter=").await.0, StatusCode::FORBIDDEN);
    let path = format!("/Users/{}", ann["id"].as_str().expect("a guid"));
    let change = |old: &str, new: &str| json!({ "oldPassword": old, "password": new });
    let put = |body: Value| client.send(client.request(Method::PUT, &format!("{path}/password")).json(&body));
    assert_eq!(put(change("wrong", "the second one")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(put(change("the first one", "1234567")).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, body) = put(change("the first one", "the first one")).await;
    assert_eq!((status, &body["error"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("invalid_password")));
    assert_eq!(body["error_description"], "Your new password cannot be the same as the old password.");
    assert_eq!(put(change("wrong one", "wrong one")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(put(change("the first one", "the second one")).await.0, StatusCode::OK);
    controller.login("ann", "the second one").await;
    let (status, gone) = admin.delete(&path).await;
    assert_eq!((status, &gone["id"]), (StatusCode::OK, &ann["id"]));
    assert_eq!(admin.delete(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_database_belongs_to_one_cluster_and_is_prepared_once() {
    let controller = TestController::start().await;
    slipway_controller::auth::bootstrap(&controller.context).await.expect("a second start");
    let count: i64 = sqlx::query_scalar("select count(*) from buildpack")
        .fetch_one(&controller.database.pool)
        .await
        .expect("a count");
    assert_eq!(count, 4);
    let mut other = controller.context.clone();
    let mut config = (*other.config).clone();
    config.cluster_id = uuid::Uuid::new_v4();
    other.config = std::sync::Arc::new(config);
    let refused = slipway_controller::auth::bootstrap(&other).await.expect_err("another cluster");
    assert!(refused.to_string().contains("belongs to cluster"), "{refused}");
}

#[tokio::test]
async fn a_password_file_for_the_administrator_is_applied_and_stays() {
    let controller = TestController::start().await;
    let file = controller.context.config.admin_password_file.clone();
    let waiting = slipway_controller::auth::waiting_password(&file);
    let login = async |password: &str| {
        controller.token(&[("grant_type", "password"), ("username", "admin"), ("password", password)]).await.0
    };
    // The file is gone, and what is in force stays.
    std::fs::remove_file(&file).expect("removed");
    slipway_controller::auth::bootstrap(&controller.context).await.expect("a start without the file");
    assert!(!file.exists());
    assert_eq!(login(ADMIN_PASSWORD).await, StatusCode::OK);

    for useless in [String::new(), "1234567".to_owned(), "x".repeat(1025)] {
        std::fs::write(&waiting, useless).expect("written");
        let refused = slipway_controller::auth::bootstrap(&controller.context).await.expect_err("no password");
        assert!(refused.to_string().contains("admin-password.new"), "{refused}");
    }
    std::fs::write(&waiting, "another one\n").expect("written");
    slipway_controller::auth::bootstrap(&controller.context).await.expect("a start with a new password");
    assert_eq!(std::fs::read_to_string(&file).expect("kept"), "another one\n");
    assert!(!waiting.exists());
    assert_eq!(login("another one").await, StatusCode::OK);
    assert_eq!(login(ADMIN_PASSWORD).await, StatusCode::UNAUTHORIZED);
}
