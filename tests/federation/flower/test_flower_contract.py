"""What we use of Flower, held against the installed version: what is gone is named."""

import sys
from pathlib import Path

import pytest

from flip.federation import flower
from flip.federation.flower import gate
from flip.federation.flower import provision as deploy
from flip.federation.flower import server as flower_server
from flip.federation.kit import Kit
from tests.federation.contract import check_call, check_word, installed, modules, part, unlisted

OURS = modules(flower)
INSTALLED = installed("flwr")

# A module of Flower's, what we call in it, and the arguments that we give.
CALLS = [
    ("flwr.app", "Message", ["content", "dst_node_id", "message_type", "ttl", "reply_to"]),
    ("flwr.app", "Message.has_content", []),
    ("flwr.app", "Context", ["node_config", "run_config"]),
    ("flwr.app", "ConfigRecord", []),
    ("flwr.app", "RecordDict", []),
    ("flwr.app.message", "remove_content_from_message", ["message"]),
    ("flwr.serverapp", "ServerApp", []),
    ("flwr.serverapp", "ServerApp.main", []),
    ("flwr.serverapp", "Grid.push_messages", ["messages"]),
    ("flwr.serverapp", "Grid.pull_messages", ["message_ids"]),
    ("flwr.serverapp", "Grid.get_node_ids", []),
    ("flwr.clientapp", "ClientApp", []),
    ("flwr.clientapp", "ClientApp.train", []),
    ("flwr.clientapp", "ClientApp.evaluate", []),
    ("flwr.clientapp", "ClientApp.query", []),
    ("flwr.simulation", "run_simulation", ["server_app", "client_app", "num_supernodes", "backend_config"]),
    ("flwr.superlink.grid.http_grid", "HttpGrid.get_nodes", []),
    ("flwr.superlink.cli", "flower_superlink", []),
    ("flwr.superlink", "extensions", []),
    ("flwr.superlink.extensions", "get_middleware", []),
    ("flwr.superlink.extensions", "get_lifespan_contexts", []),
    ("flwr.server.superlink.linkstate", "LinkState.create_node",
     ["owner_aid", "owner_name", "public_key", "heartbeat_interval", "name"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient.from_server_address",
     ["server_address", "insecure", "root_certificates", "interceptors"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient.ActivateNode", ["request"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient.DeactivateNode", ["request"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient.SendNodeHeartbeat", ["request"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient.PullMessages", ["request"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient.PullObject", ["request"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient.ConfirmMessageReceived", ["request"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient.PushMessages", ["request"]),
    ("flwr.supernode.fleet_http_client", "FleetHttpClient.PushObject", ["request"]),
    ("flwr.supernode.node_auth_http_interceptor", "NodeAuthHttpInterceptor", ["private_key", "public_key"]),
    ("flwr.supercore.interceptors", "RuntimeVersionHttpInterceptor", ["component_name"]),
    ("flwr.supercore.heartbeat", "HeartbeatSender", ["heartbeat_fn"]),
    ("flwr.supercore.heartbeat", "HeartbeatSender.start", []),
    ("flwr.supercore.heartbeat", "HeartbeatSender.stop", []),
    ("flwr.supercore.primitives.asymmetric", "public_key_to_bytes", ["public_key"]),
    ("flwr.supercore.inflatable.inflatable_protobuf_utils", "make_pull_object_fn_protobuf",
     ["pull_object_protobuf", "node", "run_id"]),
    ("flwr.supercore.inflatable.inflatable_protobuf_utils", "make_push_object_fn_protobuf",
     ["push_object_protobuf", "node", "run_id", "session_id"]),
    ("flwr.supercore.inflatable.inflatable_protobuf_utils", "make_confirm_message_received_fn_protobuf",
     ["confirm_message_received_protobuf", "node", "run_id"]),
    ("flwr.supercore.inflatable.inflatable_utils", "pull_and_inflate_object_from_tree",
     ["object_tree", "pull_object_fn", "confirm_object_received_fn", "return_type", "initial_backoff"]),
    ("flwr.supercore.inflatable.inflatable_utils", "inflate_object_from_contents", ["object_id", "object_contents"]),
    ("flwr.supercore.inflatable.inflatable_utils", "ObjectUnavailableError", []),
    ("flwr.supercore.inflatable.inflatable_object", "iterate_object_tree", ["tree"]),
    ("flwr.superlink.grid.http_grid", "HttpGrid._runtime_client", []),
    ("flwr.superlink.grid.http_grid", "HttpGrid.run", []),
    ("flwr.supercore.runtime", "RuntimeHttpClient.PullMessages", []),
    ("flwr.supercore.runtime", "RuntimeHttpClient.PullObject", []),
    ("flwr.supercore.runtime", "RuntimeHttpClient.ConfirmMessageReceived", []),
    ("flwr.superlink.servicer.fleet", "fleet_handlers", []),
    ("flwr.supercore.error", "FlowerError", ["code", "message"]),
    ("flwr.supercore.error", "ApiErrorCode", []),
    ("flwr.server.superlink.linkstate", "InMemoryLinkState", []),
    ("flwr.supercore.object_store", "ObjectStore", []),
    ("flwr.supercore.object_store", "ObjectStore.get_object_tree", ["object_id"]),
    ("flwr.supercore.object_store", "ObjectStore.delete", ["object_id"]),
    ("flwr.common.constant", "SUPERLINK_NODE_ID", []),
    ("flwr.proto.message_pb2", "ObjectTree", []),
    ("flwr.proto.message_pb2", "ConfirmMessageReceivedRequest", []),
    ("flwr.proto.runtime_pb2", "PullAppMessagesRequest", []),
    ("flwr.superlink.servicer.fleet.fleet_handlers", "push_messages", ["request", "state"]),
    ("flwr.supercore.corestate", "in_memory_corestate", []),
    ("flwr.supercore.corestate.in_memory_corestate", "OBJECT_PUSH_SESSION_TTL_SECONDS", []),
    ("flwr.supercore.inflatable.inflatable_utils", "push_objects", ["objects", "push_object_fn", "object_ids_to_push"]),
    ("flwr.supercore.inflatable.inflatable_utils", "ObjectPullError", []),
    ("flwr.supercore.inflatable.inflatable_utils", "ObjectPushError", []),
    ("flwr.supercore.inflatable.inflatable_object", "get_all_nested_objects", []),
    ("flwr.supercore.inflatable.inflatable_object", "get_object_tree", []),
    ("flwr.supercore.inflatable.inflatable_object", "no_object_id_recompute", []),
    ("flwr.supercore.control", "ControlHttpClient.from_server_address",
     ["server_address", "insecure", "root_certificates", "interceptors"]),
    ("flwr.supercore.control", "ControlHttpClient.StartRun", ["request"]),
    ("flwr.supercore.control", "ControlHttpClient.ListRuns", ["request"]),
    ("flwr.supercore.control", "ControlHttpClient.StopRun", ["request"]),
    ("flwr.supercore.fab", "Fab", ["hash_str", "content", "verifications"]),
    ("flwr.cli.build", "build_fab_from_files", ["files"]),
    ("flwr.common.serde", "message_from_proto", ["message_proto"]),
    ("flwr.common.serde", "message_to_proto", ["message"]),
    ("flwr.common.serde", "fab_to_proto", ["fab"]),
    ("flwr.common.serde", "user_config_to_proto", ["user_config"]),
    ("flwr.common.constant", "HEARTBEAT_DEFAULT_INTERVAL", []),
    ("flwr.common.constant", "NOOP_ACCOUNT_NAME", []),
    ("flwr.common.constant", "NOOP_FLWR_AID", []),
    ("flwr.common.constant", "SYSTEM_TIME_TOLERANCE", []),
    ("flwr.common.constant", "TIMESTAMP_TOLERANCE", []),
    ("flwr.common.constant", "TIMESTAMP_HEADER", []),
    ("flwr.supercore.constant", "FLEET_HTTP_PUBLIC_KEY_HEADER", []),
    ("flwr.supercore.constant", "FLEET_HTTP_SIGNATURE_HEADER", []),
    ("flwr.supercore.date", "now", []),
    ("flwr.supercore.primitives.asymmetric", "bytes_to_public_key", ["public_key_bytes"]),
    ("flwr.supercore.primitives.asymmetric", "verify_signature", ["public_key", "message", "signature"]),
    ("flwr.supercore.task_identity", "TaskIdentity", []),
    ("flwr.supercore.run", "RunNotRunningException", []),
]  # fmt: skip

# A message of Flower's protocol, and the fields that we set or read.
MESSAGES = [
    ("flwr.proto.fleet_pb2", "ActivateNodeRequest", ["public_key", "heartbeat_interval"]),
    ("flwr.proto.fleet_pb2", "DeactivateNodeRequest", ["node_id"]),
    ("flwr.proto.fleet_pb2", "PullMessagesRequest", ["node"]),
    ("flwr.proto.fleet_pb2", "PullMessagesResponse", ["messages_list", "message_object_trees"]),
    ("flwr.proto.fleet_pb2", "PushMessagesRequest",
     ["node", "messages_list", "message_object_trees", "clientapp_runtime_list"]),
    ("flwr.proto.fleet_pb2", "PushMessagesResponse", ["session_id", "objects_to_push"]),
    ("flwr.proto.heartbeat_pb2", "SendNodeHeartbeatRequest", ["node", "heartbeat_interval"]),
    ("flwr.proto.node_pb2", "Node", ["node_id"]),
    ("flwr.proto.node_pb2", "NodeInfo", ["node_id", "public_key"]),
    ("flwr.proto.control_pb2", "StartRunRequest", ["fab", "override_config"]),
    ("flwr.proto.control_pb2", "StartRunResponse", ["run_id"]),
    ("flwr.proto.control_pb2", "ListRunsRequest", ["run_id", "limit"]),
    ("flwr.proto.control_pb2", "ListRunsResponse", ["run_dict"]),
    ("flwr.proto.control_pb2", "StopRunRequest", ["run_id"]),
    ("flwr.proto.run_pb2", "Run", ["override_config", "status"]),
    ("flwr.proto.run_pb2", "RunStatus", ["status", "details"]),
]  # fmt: skip

# What has no name of its own: a module of Flower's, and what stands in its source.
WORDS = [
    ("flwr.supercore.telemetry", "FLWR_TELEMETRY_ENABLED"),
    ("flwr.supercore.update_check", "FLWR_DISABLE_UPDATE_CHECK"),
    ("flwr.supercore.superexec.run_superexec", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"),
    ("flwr.superlink.main", "*extensions.get_middleware(),"),
    ("flwr.superlink.main", "extensions.get_lifespan_contexts()"),
    ("flwr.superlink.main", "fastapi_app.state.linkstate_factory"),
    ("flwr.superlink.runtime.run_serverapp", "ServerApp failed with exception: "),
    ("flwr.common.constant", 'FINISHED = "finished"'),
    ("flwr.superlink.routers.fleet.router", f'prefix="{gate.OPEN[:-1]}"'),
    ("flwr.superlink.routers.control.router", f'prefix="{gate.GUARDED[:-1]}"'),
]


@pytest.mark.parametrize(("module", "name", "arguments"), CALLS, ids=[f"{call[0]}.{call[1]}" for call in CALLS])
def test_flower_has_what_we_call(module, name, arguments):
    check_call(module, name, arguments)


@pytest.mark.parametrize(("module", "name", "fields"), MESSAGES, ids=[each[1] for each in MESSAGES])
def test_flowers_protocol_has_the_fields_that_we_use(module, name, fields):
    known = list(part(module, name).DESCRIPTOR.fields_by_name)
    gone = [field for field in fields if field not in known]
    assert not gone, f"{module}.{name} of {INSTALLED} has {known}, not {gone}"


@pytest.mark.parametrize(("module", "word"), WORDS, ids=[each[1] for each in WORDS])
def test_flower_still_reads_or_says(module, word):
    check_word(module, word)


def test_the_superlink_has_every_option_that_we_give(tmp_path):
    deploy.prepare(["kings"], tmp_path / "kits")
    given = flower_server.options(Kit.read(tmp_path / "kits" / "server"))
    parser = part("flwr.superlink.cli.flower_superlink", "_parse_args_run_superlink")()
    gone = [word for word in given if word.startswith("--") and word not in parser._option_string_actions]
    assert not gone, f"flower-superlink of {INSTALLED} has no option {gone}"
    assert parser.parse_args(given).enable_supernode_auth
    assert not parser.parse_args(given).runtime_dependency_install


@pytest.mark.parametrize("command", ["flower-superexec", "flwr-serverapp"])
def test_the_commands_that_a_superlink_starts_are_installed_beside_python(command):
    assert (Path(sys.executable).parent / command).is_file(), f"{INSTALLED} installs no command {command}"


@pytest.mark.parametrize("module", OURS, ids=[module.__name__ for module in OURS])
def test_every_name_that_we_import_of_flower_is_in_the_contract(module):
    assert unlisted([module], [*CALLS, *MESSAGES], "flwr") == set()
