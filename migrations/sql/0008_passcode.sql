-- Codes for logging in on a machine where nobody wants to type a password (cf login --sso): short-lived, for one use.
create table passcode (
    code_hash   bytea primary key,                -- SHA-256
    user_guid   text not null references user_account (guid) on delete cascade,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz not null
);
