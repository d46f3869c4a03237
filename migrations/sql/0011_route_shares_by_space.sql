-- Which routes are shared with a space: asked by every list of routes, where a table read through once for each route
-- made a page of 100,000 routes take a hundred times as long.
create index route_shared_space_by_space on route_shared_space (space_guid);
