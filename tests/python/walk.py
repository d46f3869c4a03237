"""Everything that cloudfoundry-client knows, against a running platform.

    walk.py API PORT PASSWORD_FILE APP_DIRECTORY

API is the platform's front page (http://api.DOMAIN:PORT), PORT where its router listens on this machine, APP_DIRECTORY
the source of an app that answers GET / with 200. The client is used as it is; only the names of the platform are
resolved here, because they need not be known to this machine. Prints a line per step and ends with 1 at the first
that fails.
"""

import io
import pathlib
import socket
import sys
import tempfile
import time
import traceback
import urllib.parse
import uuid
import zipfile

import requests
from cloudfoundry_client.client import CloudFoundryClient
from cloudfoundry_client.errors import InvalidStatusCode
from cloudfoundry_client.v3.entities import EntityManager, ToManyRelationship, ToOneRelationship
from cloudfoundry_client.v3.organization_quotas import AppsQuota, DomainsQuota, RoutesQuota, ServicesQuota
from cloudfoundry_client.v3.packages import PackageType
from cloudfoundry_client.v3.routes import LoadBalancing
from cloudfoundry_client.v3.security_groups import GloballyEnabled, Rule, RuleProtocol

API, PORT, PASSWORD_FILE, APP_DIRECTORY = sys.argv[1:5]
DOMAIN = urllib.parse.urlsplit(API).hostname.removeprefix("api.")
NAME = "py-" + uuid.uuid4().hex[:8]

resolve = socket.getaddrinfo


def resolve_platform(host, *arguments, **options):
    ours = isinstance(host, str) and (host == DOMAIN or host.endswith("." + DOMAIN))
    return resolve("127.0.0.1" if ours else host, *arguments, **options)


socket.getaddrinfo = resolve_platform

STEPS = []


def step(function):
    """Registers a step; they run in the order in which they stand."""
    STEPS.append(function)
    return function


class World:
    """What the steps leave for each other."""


def job(client, guid):
    """A job, to its end."""
    ended = client.v3.jobs.wait_for_job_completion(guid)
    assert ended["state"] == "COMPLETE", ended


def remove(manager, guid):
    """Deletes and waits until it is gone. Not every manager of the client hands on the job, so the thing is looked at."""
    manager.remove(guid)

    def is_gone():
        try:
            manager.get(guid)
        except InvalidStatusCode as error:
            return int(error.status_code) == 404
        return False

    eventually("it is gone", is_gone)


def refused(status, call, *arguments, **options):
    """The call fails with this status; the errors of the answer."""
    try:
        answer = call(*arguments, **options)
    except InvalidStatusCode as error:
        assert int(error.status_code) == status, f"{error.status_code} instead of {status}: {error.body}"
        return error.body["errors"]
    raise AssertionError(f"{call} worked, where {status} was expected: {answer}")


def absent(reason, call, *arguments, **options):
    """What the platform does not offer says so, and does not pretend."""
    assert reason
    errors = refused(404, call, *arguments, **options)
    assert errors[0]["code"] == 10000 and errors[0]["detail"] == "Unknown request", errors


def eventually(what, look, seconds=120):
    limit = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < limit, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def data(guid):
    return {"data": {"guid": guid}}


def url(path):
    return API + path


@step
def log_in_and_look_around(world):
    client = CloudFoundryClient(API)
    client.init_with_user_credentials("admin", pathlib.Path(PASSWORD_FILE).read_text().strip())
    world.client = client
    assert client.info.api_v3_url.endswith("/v3")
    # The second half of the client, for an API that ended years ago, is switched off by the platform's front page.
    try:
        client.v2.apps
    except NotImplementedError:
        pass
    else:
        raise AssertionError("the platform offers a v2 API")
    # A second client goes on with the refresh token of the first, and the first still works.
    other = CloudFoundryClient(API)
    other.init_with_token(client.refresh_token)
    assert other.v3.organizations.get_first() is not None
    assert client.v3.organizations.get_first() is not None


@step
def organizations(world):
    v3 = world.client.v3
    org = v3.organizations.create(NAME, suspended=False, meta_labels={"run": NAME})
    world.org = org["guid"]
    assert v3.organizations.get(world.org)["name"] == NAME
    assert v3.organizations.update(world.org, NAME, suspended=False, meta_annotations={"a": "b"})["metadata"]["annotations"] == {"a": "b"}
    assert v3.organizations.get_first(names=NAME)["guid"] == world.org
    assert v3.organizations.len(label_selector=f"run={NAME}") == 1
    assert v3.organizations.get_default_domain(world.org)["name"] == DOMAIN
    assert DOMAIN in [domain["name"] for domain in v3.organizations.list_domains(world.org)]
    assert v3.organizations.get_usage_summary(world.org)["usage_summary"]["started_instances"] == 0
    assert v3.organizations.get_default_isolation_segment(world.org).guid is None
    errors = refused(422, v3.organizations.create, NAME, suspended=False)
    assert errors[0]["detail"] == f"Organization '{NAME}' already exists.", errors


@step
def spaces(world):
    v3 = world.client.v3
    world.space = v3.spaces.create(NAME, world.org)["guid"]
    assert v3.spaces.update(world.space, NAME + "-2")["name"] == NAME + "-2"
    assert v3.spaces.get_first(organization_guids=world.org)["guid"] == world.space
    assert v3.spaces.get(world.space).organization()["guid"] == world.org
    included = next(iter(v3.spaces.list(guids=world.space, include="organization")))
    assert included.organization()["name"] == NAME
    assert v3.spaces.get_assigned_isolation_segment(world.space).guid is None


@step
def paging(world):
    """The client follows pages by itself."""
    v3 = world.client.v3
    made = {v3.spaces.create(f"{NAME}-page-{number}", world.org)["guid"] for number in range(5)}
    listed = [space["guid"] for space in v3.spaces.list(organization_guids=world.org, per_page=2, order_by="-name")]
    assert len(listed) == 6 and made < set(listed), listed
    for guid in made:
        remove(v3.spaces, guid)
    assert v3.spaces.len(organization_guids=world.org) == 1


@step
def users_and_roles(world):
    client, v3 = world.client, world.client.v3
    made = client.post(url("/Users").replace("//api.", "//uaa."), json={
        "userName": NAME, "password": "a password of the test", "emails": [{"value": NAME}], "name": {}}).json()
    world.user = v3.users.create(made["id"])["guid"]
    assert v3.users.get(world.user)["username"] == NAME
    assert v3.users.get_first(usernames=NAME)["guid"] == world.user
    roles = EntityManager(API, client, "/v3/roles")
    member = roles._create({"type": "organization_user", "relationships": {"organization": data(world.org), "user": data(world.user)}})
    role = roles._create({"type": "space_developer", "relationships": {"space": data(world.space), "user": data(world.user)}})
    assert v3.roles.get(role["guid"])["type"] == "space_developer"
    assert v3.roles.get_first(user_guids=world.user, types="space_developer", include="user").user()["username"] == NAME
    developer = CloudFoundryClient(API)
    developer.init_with_user_credentials(NAME, "a password of the test")
    assert [space["guid"] for space in developer.v3.spaces.list()] == [world.space]
    assert refused(403, developer.v3.spaces.create, "x", world.org)[0]["title"] == "CF-NotAuthorized"
    remove(v3.roles, role["guid"])
    assert developer.v3.spaces.len() == 0
    remove(v3.roles, member["guid"])


@step
def domains(world):
    client, v3 = world.client, world.client.v3
    domain = v3.domains.create(f"{NAME}.example.com", organization=ToOneRelationship(world.org))
    assert domain["relationships"]["organization"]["data"]["guid"] == world.org
    assert v3.domains.update(domain["guid"], meta_labels={"a": "b"}, meta_annotations={})["metadata"]["labels"] == {"a": "b"}
    other = v3.organizations.create(NAME + "-other", suspended=False)["guid"]
    assert other in v3.domains.share_domain(domain["guid"], ToManyRelationship(other)).guids
    assert domain["guid"] in [found["guid"] for found in v3.domains.list_domains_for_org(other)]
    v3.domains.unshare_domain(domain["guid"], other)
    remove(v3.domains, domain["guid"])
    remove(v3.organizations, other)
    world.domain = v3.domains.get_first(names=DOMAIN)["guid"]


@step
def an_app_is_pushed(world):
    client, v3 = world.client, world.client.v3
    manifest = f"applications:\n- name: {NAME}\n  memory: 64M\n  default-route: true\n  env: {{GREETING: hello}}\n"
    answer = client.post(url(f"/v3/spaces/{world.space}/actions/apply_manifest"), data=manifest,
                         headers={"content-type": "application/x-yaml"})
    job(client, answer.headers["location"].rsplit("/", 1)[1])
    app = v3.apps.get_first(names=NAME, space_guids=world.space)
    world.app = app["guid"]
    assert app.space()["guid"] == world.space
    package = v3.packages.create(world.app, PackageType.BITS)
    source = pathlib.Path(APP_DIRECTORY)
    with tempfile.NamedTemporaryFile(suffix=".zip") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for path in sorted(source.rglob("*")):
                if path.is_file() and path.name != "manifest.yml":
                    archive.write(path, path.relative_to(source))
        file.flush()
        v3.packages._upload_bits(package["guid"], file.name)
    world.package = package["guid"]
    eventually("the package is ready", lambda: v3.packages.get(world.package)["state"] == "READY")
    builds = EntityManager(API, client, "/v3/builds")
    world.build = builds._create({"package": {"guid": world.package}})["guid"]
    eventually("the build ends", lambda: builds.get(world.build)["state"] != "STAGING", 300)
    build = builds.get(world.build)
    assert build["state"] == "STAGED", build
    world.droplet = build["droplet"]["guid"]
    client.patch(url(f"/v3/apps/{world.app}/relationships/current_droplet"), json=data(world.droplet))
    client.post(url(f"/v3/apps/{world.app}/actions/start"))
    world.process = next(iter(EntityManager(API, client, f"/v3/apps/{world.app}/processes").list()))["guid"]
    eventually("the app runs", lambda: states(world) == ["RUNNING"])
    answer = requests.get(f"http://{NAME}.{DOMAIN}:{PORT}/", timeout=60)
    assert answer.status_code == 200, answer.text


def states(world):
    answer = world.client.get(url(f"/v3/processes/{world.process}/stats")).json()
    return sorted(instance["state"] for instance in answer["resources"])


@step
def apps_and_processes(world):
    client, v3 = world.client, world.client.v3
    assert v3.apps.len(space_guids=world.space) == 1
    assert v3.apps.get_env(world.app)["environment_variables"] == {"GREETING": "hello"}
    assert v3.apps.get(world.app, "ssh_enabled")["enabled"] in (True, False)
    assert f"name: {NAME}" in v3.apps.get_manifest(world.app)
    assert [package["guid"] for package in v3.apps.list_packages(world.app)] == [world.package]
    assert [droplet["guid"] for droplet in v3.apps.list_droplets(world.app)] == [world.droplet]
    assert len(list(v3.apps.list_routes(world.app))) == 1
    assert v3.apps.get_routes(world.app)["pagination"]["total_results"] == 1
    list(v3.apps.list_revisions(world.app))
    list(v3.apps.list_deployed_revisions(world.app))
    assert v3.processes.get(world.process).app()["guid"] == world.app
    client.post(url(f"/v3/processes/{world.process}/actions/scale"), json={"instances": 2})
    eventually("two instances run", lambda: states(world) == ["RUNNING", "RUNNING"])
    client.post(url(f"/v3/processes/{world.process}/actions/scale"), json={"instances": 1})
    eventually("one instance runs", lambda: states(world) == ["RUNNING"])
    assert v3.apps.restart(world.app)["state"] == "STARTED"
    eventually("it runs again", lambda: states(world) == ["RUNNING"])


@step
def deployments(world):
    """The client has no manager for them; a generic one does."""
    deployments = EntityManager(API, world.client, "/v3/deployments")
    made = deployments._create({"relationships": {"app": data(world.app)}})
    ended = eventually("the deployment ends", lambda: deployments.get(made["guid"])["status"]["value"] == "FINALIZED")
    assert ended and deployments.get(made["guid"])["status"]["reason"] == "DEPLOYED"
    # The process of the new version has taken the place of the old one.
    world.process = next(iter(EntityManager(API, world.client, f"/v3/apps/{world.app}/processes").list()))["guid"]
    eventually("it runs", lambda: states(world) == ["RUNNING"])


@step
def packages_and_droplets(world):
    client, v3 = world.client, world.client.v3
    copy = v3.packages.copy(world.package, world.app)
    eventually("the copy is ready", lambda: v3.packages.get(copy["guid"])["state"] == "READY")
    assert v3.packages.len(app_guids=world.app) == 2
    assert [droplet["guid"] for droplet in v3.packages.list_droplets(world.package)] == [world.droplet]
    assert v3.droplets.update(world.droplet, meta_labels={"a": "b"})["metadata"]["labels"] == {"a": "b"}
    made = v3.droplets.create(world.app, process_types={"web": "true"})
    assert made["state"] == "AWAITING_UPLOAD"
    remove(v3.droplets, made["guid"])
    assert v3.droplets.len(app_guids=world.app, states="STAGED") >= 1
    assert client.get(url(f"/v3/droplets/{world.droplet}/download")).content


@step
def tasks(world):
    v3 = world.client.v3
    task = v3.tasks.create(world.app, "echo done", name="say", memory_in_mb=64)
    eventually("the task ends", lambda: v3.tasks.get(task["guid"])["state"] in ("SUCCEEDED", "FAILED"))
    assert v3.tasks.get(task["guid"])["state"] == "SUCCEEDED", v3.tasks.get(task["guid"])
    long = v3.tasks.create(world.app, "sleep 1000", name="long", memory_in_mb=64)
    assert v3.tasks.cancel(long["guid"])["state"] in ("CANCELING", "FAILED")
    eventually("the task is gone", lambda: v3.tasks.get(long["guid"])["state"] == "FAILED")
    assert v3.tasks.len(app_guids=world.app) == 2


@step
def routes(world):
    client, v3 = world.client, world.client.v3
    route = v3.routes.create(world.space, world.domain, host=NAME + "-r", path="/p", load_balancing=LoadBalancing.LEAST_CONNECTION)
    assert route["url"] == f"{NAME}-r.{DOMAIN}/p" and route["options"]["loadbalancing"] == "least-connection"
    assert v3.routes.update(route["guid"], load_balancing=LoadBalancing.ROUND_ROBIN)["options"]["loadbalancing"] == "round-robin"
    assert v3.routes.get_first(hosts=NAME + "-r", include="domain").domain()["name"] == DOMAIN
    remove(v3.routes, route["guid"])


@step
def events_and_logs(world):
    client, v3 = world.client, world.client.v3
    types = {event["type"] for event in v3.audit_events.list(target_guids=world.app)}
    assert "audit.app.create" in types or "audit.app.apply_manifest" in types, types
    event = v3.audit_events.get_first(target_guids=world.app)
    assert v3.audit_events.get(event["guid"])["target"]["guid"] == world.app
    logs = url(f"/api/v1/read/{world.app}?descending=true").replace("//api.", "//log-cache.")
    eventually("the app has lines", lambda: client.get(logs).json()["envelopes"]["batch"])
    # Streams of the older kinds are not offered: the front page names neither, and the client then has neither.
    assert client.info.doppler_endpoint is None and client.info.log_stream_endpoint is None


@step
def buildpacks_and_stacks(world):
    client, v3 = world.client, world.client.v3
    made = v3.buildpacks.create(NAME, position=1, enabled=False)
    with tempfile.NamedTemporaryFile(suffix=".zip") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name in ("detect", "compile", "release"):
                archive.writestr(zipfile.ZipInfo(f"bin/{name}"), "#!/bin/sh\nexit 1\n")
        file.flush()
        v3.buildpacks.upload(made["guid"], file.name)
    assert v3.buildpacks.get(made["guid"])["state"] == "READY"
    assert v3.buildpacks.update(made["guid"], NAME + "-2", position=1, enabled=False)["name"] == NAME + "-2"
    remove(v3.buildpacks, made["guid"])
    stack = v3.stacks.get_first()
    assert v3.stacks.get(stack["guid"])["name"] == stack["name"]
    own = v3.stacks.create(NAME, description="of the test")["guid"]
    assert v3.stacks.update(own, meta_labels={"a": "b"})["metadata"]["labels"] == {"a": "b"}
    assert list(v3.stacks.list_apps(own)) == []
    remove(v3.stacks, own)


@step
def feature_flags(world):
    v3 = world.client.v3
    assert v3.feature_flags.get("task_creation")["enabled"] is True
    assert {flag["name"] for flag in v3.feature_flags.list()} >= {"task_creation", "user_org_creation"}
    before = v3.feature_flags.get("user_org_creation")["enabled"]
    assert v3.feature_flags.update("user_org_creation", not before)["enabled"] is not before
    assert v3.feature_flags.update("user_org_creation", before)["enabled"] is before


@step
def organization_quotas(world):
    client, v3 = world.client, world.client.v3
    quota = v3.organization_quotas.create(
        NAME, AppsQuota(4096, 1024, 10, 5), ServicesQuota(False, 10, 10), RoutesQuota(10, 0), DomainsQuota(3))
    assert quota["apps"]["total_memory_in_mb"] == 4096 and quota["services"]["paid_services_allowed"] is False
    applied = v3.organization_quotas.apply_to_organizations(quota["guid"], ToManyRelationship(world.org))
    assert world.org in applied.guids
    assert v3.organization_quotas.update(quota["guid"], NAME, AppsQuota(8192, 1024, 10, 5))["apps"]["total_memory_in_mb"] == 8192
    # What is in use stays.
    refused(422, v3.organization_quotas.remove, quota["guid"])
    default = v3.organization_quotas.get_first(names="default")
    v3.organization_quotas.apply_to_organizations(default["guid"], ToManyRelationship(world.org))
    remove(v3.organization_quotas, quota["guid"])


@step
def security_groups(world):
    client, v3 = world.client, world.client.v3
    group = v3.security_groups.create(
        NAME, rules=[Rule(protocol=RuleProtocol.TCP, destination="10.0.0.0/8", ports="443")],
        globally_enabled=GloballyEnabled(running=False, staging=False))
    world.group = group["guid"]
    spaces = ToManyRelationship(world.space)
    assert world.space in v3.security_groups.bind_running_security_group_to_spaces(world.group, spaces).guids
    assert world.space in v3.security_groups.bind_staging_security_group_to_spaces(world.group, spaces).guids
    v3.security_groups.unbind_running_security_group_from_space(world.group, ToOneRelationship(world.space))
    v3.security_groups.unbind_staging_security_group_from_space(world.group, ToOneRelationship(world.space))
    assert v3.security_groups.update(world.group, name=NAME + "-2")["name"] == NAME + "-2"
    remove(v3.security_groups, world.group)


@step
def isolation_segments(world):
    v3 = world.client.v3
    segment = v3.isolation_segments.create(NAME)["guid"]
    assert world.org in v3.isolation_segments.entitle_organizations(segment, world.org).guids
    assert world.org in v3.isolation_segments.list_entitled_organizations(segment).guids
    v3.spaces.assign_isolation_segment(world.space, segment)
    assert v3.spaces.get_assigned_isolation_segment(world.space).guid == segment
    assert world.space in v3.isolation_segments.list_entitled_spaces(segment).guids
    v3.spaces.assign_isolation_segment(world.space, None)
    v3.isolation_segments.revoke_organization(segment, world.org)
    v3.isolation_segments.remove(segment)


@step
def user_provided_services(world):
    client, v3 = world.client, world.client.v3
    made = client.post(url("/v3/service_instances"), json={
        "type": "user-provided", "name": NAME, "credentials": {"password": "secret"},
        "relationships": {"space": data(world.space)}}).json()
    assert v3.service_instances.get(made["guid"])["name"] == NAME
    assert v3.service_instances.get_permissions(made["guid"])["manage"] is True
    v3.service_credential_bindings.create("a-binding", "app", made["guid"], world.app, None, None, None)
    binding = v3.service_credential_bindings.get_first(app_guids=world.app)
    assert binding["name"] == "a-binding"
    assert "VCAP_SERVICES" in v3.apps.get_env(world.app)["system_env_json"]
    # Nobody has to be asked for it, so it is gone at once, without a job.
    v3.service_credential_bindings._remove(binding["guid"])
    assert v3.service_credential_bindings.len(app_guids=world.app) == 0
    remove(v3.service_instances, made["guid"])


@step
def what_brokers_would_bring(world):
    """Brokers are not built: there are none, and making one is refused with what to do instead."""
    v3 = world.client.v3
    errors = refused(422, v3.service_brokers.create, NAME, "http://broker.example.com", "user", "password")
    assert "user-provided" in errors[0]["detail"], errors
    assert v3.service_brokers.get_first() is None
    # What brokers would offer is an empty market, not an error.
    assert v3.service_offerings.get_first() is None and v3.service_plans.get_first() is None
    absent("apps cannot reach each other, so there is no network to be opened",
           lambda: list(world.client.networking_v1_external.policies.list()))


@step
def everything_goes_away(world):
    client, v3 = world.client, world.client.v3
    remove(v3.apps, world.app)
    assert refused(404, v3.apps.get, world.app)[0]["detail"] == "App not found"
    remove(v3.spaces, world.space)
    remove(v3.organizations, world.org)
    remove(v3.users, world.user)
    assert v3.organizations.get_first(names=NAME) is None


def main():
    world = World()
    for function in STEPS:
        before = time.monotonic()
        try:
            function(world)
        except Exception:  # whatever it is, the step's name belongs beside it
            out = io.StringIO()
            traceback.print_exc(file=out)
            print(f"{function.__name__} ... FAILED\n{out.getvalue()}", flush=True)
            return 1
        print(f"{function.__name__} ... ok ({time.monotonic() - before:.1f} s)", flush=True)
    return 0


sys.exit(main())
