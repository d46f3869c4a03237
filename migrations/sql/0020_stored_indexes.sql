-- What an organization stores is summed at every upload: without looking at rows whose bits are gone.
create index package_stored on package (app_guid) include (blob_size) where blob is not null;
create index droplet_stored on droplet (app_guid) include (blob_size) where blob is not null;
