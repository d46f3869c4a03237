-- Set for cells that have seen versions from before the epoch rose: they may run things that this store has lost (a
-- restored backup, a failover that lost commits), so what they report and the store does not know is never purged.
alter table cell add column holds_unknown boolean not null default false;
