-- Where a router's connections come from, for the rules of the cells' networks; empty until its next session.
alter table router add column addresses text[] not null default '{}';
