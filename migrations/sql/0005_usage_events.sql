-- Usage events: what was desired, when, for accounting. They are written by triggers, in the transaction of the change
-- itself, because a change of what is desired may come from many places (start, scale, manifest, deployment, deletion of
-- a space) and a record that one of them forgets would make every sum after it wrong.

create table app_usage_event (
    seq         bigint generated always as identity primary key,
    guid        uuid not null unique default gen_random_uuid(),
    created_at  timestamptz not null default now(),
    state       text not null,
    previous_state text,
    app_guid    uuid not null,
    app_name    text not null,
    space_guid  uuid,
    space_name  text,
    org_guid    uuid,
    process_guid uuid,
    process_type text,
    task_guid   uuid,
    task_name   text,
    buildpack_guid uuid,
    buildpack_name text,
    memory_in_mb bigint,
    previous_memory_in_mb bigint,
    instances   integer,
    previous_instances integer
);

create table service_usage_event (
    seq         bigint generated always as identity primary key,
    guid        uuid not null unique default gen_random_uuid(),
    created_at  timestamptz not null default now(),
    state       text not null,
    space_guid  uuid,
    space_name  text,
    org_guid    uuid,
    service_instance_guid uuid not null,
    service_instance_name text not null,
    service_instance_type text not null,
    service_plan_guid uuid,
    service_plan_name text,
    service_offering_guid uuid,
    service_offering_name text,
    service_broker_guid uuid,
    service_broker_name text
);

-- One event about a process. `was` is the state before, null when there was none.
create function app_usage_of_process(p process, now_state text, was text, was_memory bigint, was_instances integer)
returns void language sql as $$
    insert into app_usage_event (state, previous_state, app_guid, app_name, space_guid, space_name, org_guid,
                                 process_guid, process_type, memory_in_mb, previous_memory_in_mb, instances,
                                 previous_instances)
    select now_state, was, a.guid, a.name, s.guid, s.name, s.org_guid, p.guid, p.type, p.memory_in_mb, was_memory,
           p.instances, was_instances
    from app a join space s on s.guid = a.space_guid where a.guid = p.app_guid;
$$;

create function app_usage_on_app() returns trigger language plpgsql as $$
declare p process;
begin
    for p in select * from process where app_guid = new.guid order by type, guid loop
        perform app_usage_of_process(p, new.state, old.state, p.memory_in_mb, p.instances);
    end loop;
    return null;
end $$;
create trigger app_usage after update of state on app
    for each row when (old.state is distinct from new.state) execute function app_usage_on_app();

-- A deleted app takes its processes along; they must be recorded before.
create function app_usage_on_app_delete() returns trigger language plpgsql as $$
declare p process;
begin
    for p in select * from process where app_guid = old.guid order by type, guid loop
        perform app_usage_of_process(p, 'STOPPED', 'STARTED', p.memory_in_mb, p.instances);
    end loop;
    return old;
end $$;
create trigger app_usage_delete before delete on app
    for each row when (old.state = 'STARTED') execute function app_usage_on_app_delete();

create function app_usage_on_process() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        -- With its app gone already, the app's own trigger has recorded it.
        if exists (select 1 from app where guid = old.app_guid and state = 'STARTED') then
            perform app_usage_of_process(old, 'STOPPED', 'STARTED', old.memory_in_mb, old.instances);
        end if;
        return null;
    end if;
    if not exists (select 1 from app where guid = new.app_guid and state = 'STARTED') then
        return null;
    end if;
    if tg_op = 'INSERT' then
        perform app_usage_of_process(new, 'STARTED', 'STOPPED', null, null);
    elsif old.instances is distinct from new.instances or old.memory_in_mb is distinct from new.memory_in_mb then
        perform app_usage_of_process(new, 'STARTED', 'STARTED', old.memory_in_mb, old.instances);
    end if;
    return null;
end $$;
create trigger process_usage after insert or update of instances, memory_in_mb or delete on process
    for each row execute function app_usage_on_process();

create function app_usage_on_task() returns trigger language plpgsql as $$
declare
    t task := case when tg_op = 'DELETE' then old else new end;
    now_state text := case when tg_op = 'INSERT' then 'TASK_STARTED' else 'TASK_STOPPED' end;
begin
    if tg_op = 'UPDATE' and (old.state in ('SUCCEEDED', 'FAILED') or new.state not in ('SUCCEEDED', 'FAILED')) then
        return null;
    end if;
    if tg_op = 'DELETE' and old.state in ('SUCCEEDED', 'FAILED') then
        return old;
    end if;
    insert into app_usage_event (state, previous_state, app_guid, app_name, space_guid, space_name, org_guid, task_guid,
                                 task_name, memory_in_mb, previous_memory_in_mb, instances, previous_instances)
    select now_state, case when now_state = 'TASK_STOPPED' then 'TASK_STARTED' end, a.guid, a.name, s.guid, s.name,
           s.org_guid, t.guid, t.name, t.memory_in_mb, case when now_state = 'TASK_STOPPED' then t.memory_in_mb end, 1,
           case when now_state = 'TASK_STOPPED' then 1 end
    from app a join space s on s.guid = a.space_guid where a.guid = t.app_guid;
    return coalesce(new, old);
end $$;
create trigger task_usage after insert or update of state on task
    for each row execute function app_usage_on_task();
create trigger task_usage_delete before delete on task
    for each row execute function app_usage_on_task();

create function app_usage_on_build() returns trigger language plpgsql as $$
declare now_state text := case when tg_op = 'INSERT' then 'STAGING_STARTED' else 'STAGING_STOPPED' end;
begin
    if tg_op = 'UPDATE' and (old.state <> 'STAGING' or new.state = 'STAGING') then
        return null;
    end if;
    insert into app_usage_event (state, previous_state, app_guid, app_name, space_guid, space_name, org_guid,
                                 memory_in_mb, previous_memory_in_mb, instances, previous_instances, buildpack_name)
    select now_state, case when now_state = 'STAGING_STOPPED' then 'STAGING' else null end, a.guid, a.name, s.guid,
           s.name, s.org_guid, new.staging_memory_in_mb,
           case when now_state = 'STAGING_STOPPED' then new.staging_memory_in_mb end, 1,
           case when now_state = 'STAGING_STOPPED' then 1 end, new.lifecycle #>> '{data,buildpacks,0}'
    from app a join space s on s.guid = a.space_guid where a.guid = new.app_guid;
    return null;
end $$;
create trigger build_usage after insert or update of state on build
    for each row execute function app_usage_on_build();
