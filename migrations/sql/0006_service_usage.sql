-- Service usage events, as app usage events written where the change happens.
create function service_usage(now_state text, i service_instance) returns void language sql as $$
    insert into service_usage_event (state, space_guid, space_name, org_guid, service_instance_guid,
                                     service_instance_name, service_instance_type)
    select now_state, s.guid, s.name, s.org_guid, i.guid, i.name, replace(i.type, '-', '_') || '_service_instance'
    from space s where s.guid = i.space_guid;
$$;

create function service_usage_on_instance() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        perform service_usage('DELETED', old);
        return null;
    end if;
    perform service_usage(case when tg_op = 'INSERT' then 'CREATED' else 'UPDATED' end, new);
    return null;
end $$;
create trigger service_usage after insert or delete on service_instance
    for each row execute function service_usage_on_instance();
create trigger service_usage_rename after update of name on service_instance
    for each row when (old.name is distinct from new.name) execute function service_usage_on_instance();
