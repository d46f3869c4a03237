-- Whether somebody asked for a process's memory. What nobody asked for follows what the app is built with: a site of static
-- files needs a fraction of what a program is given. What is there already counts as asked for.
alter table process add column memory_chosen boolean not null default true;
