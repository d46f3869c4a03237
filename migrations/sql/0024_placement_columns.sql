-- What the planner decides by, as columns instead of the beginning of a sentence and a key of a JSON document.
-- Why something has no place: the kind decides how long it is waited for; `reason` has the words with the figures. What an
-- older controller writes is of kind `other` until the next round of planning.
alter table unplaced add column kind text not null default 'other'
    check (kind in ('no_compatible_cell', 'no_room', 'other'));
-- Crashes in a row, as the cell counts them. While it is null, `exit` may have them, written by an older controller.
alter table assignment add column crashes integer;
