-- Which private domains are shared with an organization: asked by lists of domains, by the end of a share, and by the
-- removal of the organization.
create index domain_shared_organization_by_org on domain_shared_organization (org_guid);
