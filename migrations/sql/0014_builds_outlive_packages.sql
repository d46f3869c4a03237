-- A build tells how its droplet came to be, also when the package is gone: a client that watches it must not find nothing,
-- and the usage events of its staging must have their end. `package.delete` waits for builds that go on.
alter table build drop constraint build_package_guid_fkey;
