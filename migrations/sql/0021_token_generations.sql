-- What ends tokens. Each token names the generations of its account and of its client, and is good only while both are
-- those: a number, not a moment, because tokens tell time in whole seconds, and because it also tells an account from
-- another one that has got the same name since.
create sequence account_generation;
-- Tokens of before this migration name none, which means zero.
alter table user_account add column generation bigint not null default 0;
alter table user_account alter column generation set default nextval('account_generation');

alter table refresh_token
    add column user_generation bigint not null default 0,
    add column client_generation bigint not null default 0;

-- Null: made by a controller of before, which does not say what its maker's token could do.
alter table passcode
    add column scopes text[],
    add column user_generation bigint not null default 0;

-- Here and not in the controller, so that an operator who takes a right away in the database ends the tokens with it.
create function account_ends_tokens() returns trigger language plpgsql as $$
begin
    if new.password_hash is distinct from old.password_hash or new.scopes is distinct from old.scopes then
        new.generation := nextval('account_generation');
    end if;
    return new;
end $$;
create trigger account_ends_tokens before update of password_hash, scopes on user_account
    for each row execute function account_ends_tokens();
