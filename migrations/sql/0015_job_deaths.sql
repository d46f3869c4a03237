-- How often whoever ran a job was gone before it had said how the job ended. Such a run records no failure of its own, so
-- only the next claim can count it.
alter table job add column deaths integer not null default 0;
