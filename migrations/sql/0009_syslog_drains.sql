-- How far the lines of a bound app have been sent to a syslog drain. No row: nothing was sent yet.
create table syslog_drain (
    service_instance_guid uuid not null references service_instance (guid) on delete cascade,
    app_guid    uuid not null references app (guid) on delete cascade,
    position_ns bigint not null,                  -- lines before this time were sent, or are lost
    lost        bigint not null default 0,
    error       text,                             -- why nothing can be sent now
    updated_at  timestamptz not null default now(),
    primary key (service_instance_guid, app_guid)
);
