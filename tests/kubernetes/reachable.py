"""Says which pods of a namespace reach which others, by what the policies of an overlay select."""

from typing import Any

from tests.kubernetes.manifests import Resource

Labels = dict[str, str]
TEMPLATES = ("Deployment", "StatefulSet", "Job")
COMPONENT = "app.kubernetes.io/component"


def pods_of(resources: list[Resource]) -> dict[str, dict[str, Any]]:
    """Returns the templates of all pods, by their component."""
    templates = [each["spec"]["template"] for each in resources if each["kind"] in TEMPLATES]
    return {template["metadata"]["labels"][COMPONENT]: template for template in templates}


def ports_of(template: dict[str, Any]) -> dict[str, int]:
    """Returns the ports of a pod by their names."""
    ports = [port for container in template["spec"]["containers"] for port in container.get("ports", ())]
    return {port["name"]: port["containerPort"] for port in ports}


def selects(selector: dict[str, Any], labels: Labels) -> bool:
    """Whether a label selector selects a pod. An empty selector selects every pod."""
    wanted = selector.get("matchLabels", {}).items()
    expressions = selector.get("matchExpressions", ())
    assert all(each["operator"] == "In" for each in expressions)
    return wanted <= labels.items() and all(labels.get(each["key"]) in each["values"] for each in expressions)


def find_ways(resources: list[Resource]) -> set[str]:
    """Returns `FROM TO:PORT` for each port of a pod that another pod of the namespace may reach.

    Each pod must be named by a policy for both directions, because Kubernetes isolates no other pods.
    """
    policies = [each["spec"] for each in resources if each["kind"] == "NetworkPolicy"]
    pods = pods_of(resources)
    for component, template in pods.items():
        for direction in ("Ingress", "Egress"):
            assert any(
                direction in policy["policyTypes"]
                and selects(policy["podSelector"], template["metadata"]["labels"])
                for policy in policies
            ), f"no policy isolates {component}"
    return {
        f"{source} {target}:{port}"
        for source, sender in pods.items()
        for target, receiver in pods.items()
        for port in ports_of(receiver).values()
        if _allows(policies, ("egress", "to"), sender, receiver, port)
        and _allows(policies, ("ingress", "from"), receiver, sender, port)
    }


def _allows(
    policies: list[dict[str, Any]],
    words: tuple[str, str],
    pod: dict[str, Any],
    peer: dict[str, Any],
    port: int,
) -> bool:
    """Whether a policy of `pod` allows `peer` and the port, in the direction of the two words."""
    rules, peers = words
    return any(
        (peers not in rule or any(_is_peer(each, peer) for each in rule[peers]))
        and ("ports" not in rule or any(each["port"] == port for each in rule["ports"]))
        for policy in policies
        if selects(policy["podSelector"], pod["metadata"]["labels"])
        for rule in policy.get(rules, ())
    )


def _is_peer(selector: dict[str, Any], pod: dict[str, Any]) -> bool:
    # Other namespaces, and addresses outside, are no pods of this namespace.
    return set(selector) == {"podSelector"} and selects(selector["podSelector"], pod["metadata"]["labels"])
