"""What we use of NVIDIA FLARE, held against the installed version: what is gone is named."""

from importlib.metadata import version

import pytest

from flip.federation import nvflare
from tests.federation.contract import check_call, check_value, check_word, modules, part, unlisted

OURS = modules(nvflare)
API = "nvflare.fuel.flare_api.flare_api"

# A module of FLARE's, what we call in it, and the arguments that we give.
CALLS = [
    ("nvflare.private.fed.app.deployer", "simulator_deployer.get_open_ports", ["number"]),
    ("nvflare.private.fed.app.simulator", "simulator_runner.get_open_ports", ["number"]),
    ("nvflare.fuel.f3.streaming.file_downloader", "add_file", ["downloader", "file_name"]),
    ("nvflare.fuel.f3.streaming.download_service", "download_object",
     ["from_fqcn", "ref_id", "per_request_timeout", "cell", "consumer", "abort_signal"]),
    ("nvflare.fuel.f3.streaming.file_downloader", "_ChunkConsumer", ["location"]),
    ("nvflare.fuel.f3.streaming.file_downloader", "_ChunkConsumer.consume", ["ref_id", "state", "data"]),
    ("nvflare.apis.signal", "Signal.trigger", ["value"]),
    ("nvflare.private.admin_defs", "Message", ["topic", "body"]),
    ("nvflare.apis.fl_context", "FLContext", []),
    ("nvflare.private.fed.server.message_send", "ClientReply", ["client_token", "client_name", "req", "reply"]),
    ("nvflare.private.fed.server.admin", "FedAdminServer.send_requests", ["requests", "fl_ctx", "timeout_secs"]),
    ("nvflare.fuel.f3.streaming.obj_downloader", "ObjectDownloader",
     ["cell", "timeout", "num_receivers", "transaction_done_cb"]),
    ("nvflare.fuel.f3.cellnet.core_cell", "CoreCell.get_fqcn", []),
    ("nvflare.apis.workspace", "Workspace.get_run_dir", ["job_id"]),
    ("nvflare.private.fed.client.client_run_manager", "ClientRunManager.get_cell", []),
    ("nvflare.private.fed.server.server_engine", "ServerEngine.get_cell", []),
    ("nvflare.private.fed.app.simulator.simulator_runner", "SimulatorRunner",
     ["job_folder", "workspace", "clients", "threads", "log_config"]),
    ("nvflare.private.fed.app.simulator.simulator_runner", "SimulatorRunner.simulator_run_main", []),
    ("nvflare.private.fed.app.simulator.simulator_runner", "SimulatorRunner._generate_args", ["job_folder", "clients"]),
    ("nvflare.apis.impl.controller", "Controller", []),
    ("nvflare.apis.impl.controller", "Controller.start_controller", ["fl_ctx"]),
    ("nvflare.apis.impl.controller", "Controller.stop_controller", ["fl_ctx"]),
    ("nvflare.apis.impl.controller", "Controller.control_flow", ["abort_signal", "fl_ctx"]),
    ("nvflare.apis.impl.controller", "Controller.send", ["task", "fl_ctx", "targets"]),
    ("nvflare.apis.impl.controller", "Controller.cancel_task", ["task", "completion_status"]),
    ("nvflare.apis.impl.controller", "Controller.get_client_disconnect_time", ["client_name"]),
    ("nvflare.apis.controller_spec", "Task", ["name", "data", "props", "result_received_cb"]),
    ("nvflare.apis.executor", "Executor", []),
    ("nvflare.apis.executor", "Executor.execute", ["task_name", "shareable", "fl_ctx", "abort_signal"]),
    ("nvflare.apis.executor", "Executor.handle_event", ["event_type", "fl_ctx"]),
    ("nvflare.apis.shareable", "Shareable", ["data"]),
    ("nvflare.apis.shareable", "make_reply", ["rc"]),
    ("nvflare.private.fed.simulator.simulator_server", "SimulatorServerEngine.send_aux_request",
     ["targets", "topic", "request", "timeout", "fl_ctx", "optional"]),
    ("nvflare.private.fed.simulator.simulator_server", "SimulatorServerEngine.get_client_from_name", ["client_name"]),
    ("nvflare.private.fed.simulator.simulator_app_runner", "SimulatorClientRunManager.register_aux_message_handler",
     ["topic", "message_handle_func"]),
    (API, "new_secure_session", ["username", "startup_kit_location", "timeout"]),
    (API, "Session.submit_job", ["job_definition_path"]),
    (API, "Session.get_job_meta", ["job_id"]),
    (API, "Session.do_app_command", ["job_id", "topic", "cmd_data"]),
    (API, "Session.download_job_result", ["job_id"]),
    (API, "Session.abort_job", ["job_id"]),
    (API, "Session.get_connected_client_list", []),
    (API, "Session.get_system_info", []),
    (API, "Session.close", []),
    ("nvflare.fuel.flare_api.api_spec", "ServerInfo", ["start_time"]),
    ("nvflare.fuel.flare_api.api_spec", "ClientInfo", ["name"]),
    ("nvflare.lighter.entity", "Project", ["name", "description", "serialized_root_cert", "root_private_key"]),
    ("nvflare.lighter.utils", "Identity", ["name", "org"]),
    ("nvflare.lighter.utils", "generate_cert",
     ["subject", "issuer", "signing_pri_key", "subject_pub_key", "not_valid_after"]),
    ("nvflare.lighter.utils", "serialize_cert", ["cert"]),
    ("nvflare.lighter.utils", "serialize_pri_key", ["pri_key"]),
    ("nvflare.private.fed.server.fed_server", "FederatedServer.register_client", ["request"]),
    ("nvflare.private.fed.server.fed_server", "FederatedServer._validate_auth_headers", ["message"]),
    ("nvflare.fuel.f3.cellnet.utils", "make_reply", ["rc", "error"]),
    ("nvflare.fuel.f3.message", "Message.get_prop", ["key"]),
    ("nvflare.fuel.f3.endpoint", "Endpoint", ["name", "conn_props"]),
    ("nvflare.lighter.entity", "Project.set_server", ["name", "org", "props"]),
    ("nvflare.lighter.entity", "Project.add_admin", ["name", "org", "props"]),
    ("nvflare.lighter.entity", "Project.add_client", ["name", "org", "props"]),
    ("nvflare.lighter.impl.workspace", "WorkspaceBuilder", []),
    ("nvflare.lighter.impl.cert", "CertBuilder", []),
    ("nvflare.lighter.impl.static_file", "StaticFileBuilder", ["config_folder", "scheme", "require_signed_jobs"]),
    ("nvflare.lighter.provisioner", "Provisioner", ["root_dir", "builders"]),
    ("nvflare.lighter.provisioner", "Provisioner.provision", ["project", "logger"]),
    ("nvflare.private.fed.server.server_engine", "ServerEngine.register_app_command", ["topic", "cmd_func"]),
    ("nvflare.private.fed.server.server_engine", "ServerEngine.sync_clients_from_main_process", []),
    ("nvflare.private.fed.server.server_engine", "ServerEngine.get_client_from_name", ["client_name"]),
    ("nvflare.private.fed.server.server_engine", "ServerEngine.check_client_resources",
     ["job", "resource_reqs", "fl_ctx"]),
    ("nvflare.private.fed.server.server_engine", "ServerEngine.start_client_job", ["job", "client_sites", "fl_ctx"]),
    ("nvflare.private.fed.server.server_engine", "ServerEngine.new_context", []),
    ("nvflare.private.fed.server.server_engine", "ServerEngine.get_clients", []),
    ("nvflare.private.fed.server.job_runner", "JobRunner.get_client_outcome_jobs", []),
    ("nvflare.private.fed.server.job_runner", "JobRunner.resolve_client_outcome", ["job_id", "client_name"]),
    ("nvflare.private.fed.server.job_runner", "JobRunner._make_deploy_message",
     ["job", "app_data", "app_name", "fl_ctx"]),
    ("nvflare.private.fed.server.admin", "FedAdminServer.send_requests_and_get_reply_dict",
     ["requests", "timeout_secs"]),
    ("nvflare.apis.job_def", "Job.get_application", ["app_name", "fl_ctx"]),
    ("nvflare.apis.job_def", "Job.get_application_name", ["participant"]),
    ("nvflare.apis.job_scheduler_spec", "DispatchInfo", ["app_name", "resource_requirements", "token"]),
    ("nvflare.apis.fl_component", "FLComponent", []),
    ("nvflare.apis.workspace", "Workspace.get_app_dir", ["job_id"]),
    ("nvflare.apis.workspace", "Workspace.get_file_path_in_root", ["file_basename"]),
    ("nvflare.private.fed.app.server.server_train", "main", ["args"]),
    ("nvflare.private.fed.app.client.client_train", "main", ["args"]),
]  # fmt: skip

# What FLARE's session raises.
SESSION = [
    "AuthenticationError", "AuthorizationError", "InternalError", "InvalidJobDefinition", "JobNotFound",
    "JobNotRunning", "NoConnection", "NoReply", "SessionClosed",
]  # fmt: skip
ERRORS = [
    ("nvflare.apis.fl_exception", "FLCommunicationError"),
    *(("nvflare.fuel.flare_api.api_spec", name) for name in SESSION),
]

# A module of FLARE's, a constant in it, and the value that we rely on.
VALUES = [
    ("nvflare.fuel.f3.cellnet.defs", "IdentityChallengeKey.CERT", "cert"),
    ("nvflare.fuel.f3.cellnet.defs", "MessageHeaderKey.DESTINATION", "cn__destination"),
    ("nvflare.fuel.f3.cellnet.defs", "MessageHeaderKey.CHANNEL", "cn__channel"),
    ("nvflare.fuel.f3.cellnet.defs", "MessageHeaderKey.TOPIC", "cn__topic"),
    ("nvflare.private.defs", "CellChannel.SERVER_MAIN", "task"),
    ("nvflare.private.defs", "ERROR_MSG_PREFIX", "NVFLARE_ERROR"),
    ("nvflare.apis.shareable", "ReservedHeaderKey.HEADERS", "__headers__"),
    ("nvflare.private.defs", "TrainingTopic.START_JOB", "train.start_job"),
    ("nvflare.private.defs", "TrainingTopic.CHECK_RESOURCE", "scheduler.check_resource"),
    ("nvflare.private.defs", "CellChannelTopic.Register", "register"),
    ("nvflare.fuel.f3.cellnet.defs", "MessagePropKey.ENDPOINT", "cn__endpoint"),
    ("nvflare.fuel.f3.cellnet.defs", "MessagePropKey.COMMON_NAME", "cn__common_name"),
    ("nvflare.fuel.f3.drivers.driver_params", "DriverParams.PEER_ADDR", "peer_addr"),
    ("nvflare.fuel.f3.cellnet.defs", "ReturnCode.UNAUTHENTICATED", "unauthenticated"),
    ("nvflare.private.defs", "CellMessageHeaderKeys.CLIENT_NAME", "client_name"),
    ("nvflare.apis.controller_spec", "TaskCompletionStatus.OK", "ok"),
    ("nvflare.apis.event_type", "EventType.START_RUN", "_start_run"),
    ("nvflare.apis.event_type", "EventType.BEFORE_PULL_TASK", "_before_pull_task"),
    ("nvflare.apis.event_type", "EventType.CLIENT_DISCONNECTED", "_client_disconnected"),
    ("nvflare.apis.fl_constant", "FLContextKey.DISCONNECTED_CLIENT_NAME", "_disconnected_client_name"),
    ("nvflare.apis.shareable", "ReturnCode.OK", "OK"),
    ("nvflare.apis.fl_constant", "SystemVarName.WORKSPACE", "WORKSPACE"),
    ("nvflare.apis.fl_constant", "SystemVarName.SITE_NAME", "SITE_NAME"),
    ("nvflare.apis.fl_constant", "ConfigVarName.GET_TASK_TIMEOUT", "get_task_timeout"),
    ("nvflare.apis.fl_constant", "ConfigVarName.SUBMIT_TASK_RESULT_TIMEOUT", "submit_task_result_timeout"),
    ("nvflare.apis.fl_constant", "JobConstants.META", "meta"),
    ("nvflare.apis.fl_constant", "JobConstants.SERVER_JOB_CONFIG", "config_fed_server.json"),
    ("nvflare.apis.fl_constant", "JobConstants.CLIENT_JOB_CONFIG", "config_fed_client.json"),
    ("nvflare.apis.fl_constant", "WorkspaceConstants.RESOURCES_CONFIG", "resources.json"),
    ("nvflare.apis.job_def", "ALL_SITES", "@ALL"),
    ("nvflare.app_common.widgets.component_path_authorizer", "CLASS_ALLOW_LIST", "class_allow_list"),
    ("nvflare.apis.job_def", "RunStatus.FINISHED_COMPLETED", "FINISHED:COMPLETED"),
    ("nvflare.apis.job_def", "RunStatus.FINISHED_ABORTED", "FINISHED:ABORTED"),
    ("nvflare.apis.job_def", "RunStatus.FAILED_TO_RUN", "FINISHED:FAILED_TO_RUN"),
    ("nvflare.apis.event_type", "EventType.JOB_STARTED", "_job_started"),
    ("nvflare.apis.event_type", "EventType.CLIENT_HEARTBEAT_PROCESSED", "_client_heartbeat_processed"),
    ("nvflare.apis.fl_constant", "RunProcessKey.PARTICIPANTS", "_participants"),
    ("nvflare.private.admin_defs", "MsgHeader.RETURN_CODE", "_rtnCode"),
    ("nvflare.private.admin_defs", "ReturnCode.OK", "_ok"),
    ("nvflare.lighter.constants", "CtxKey.BUILD_ERROR", "__build_error__"),
    ("nvflare.lighter.constants", "CtxKey.ERRORS", "__errors__"),
    ("nvflare.lighter.constants", "CtxKey.CURRENT_PROD_DIR", "current_prod_dir"),
    ("nvflare.lighter.constants", "PropKey.FED_LEARN_PORT", "fed_learn_port"),
    ("nvflare.lighter.constants", "PropKey.DEFAULT_HOST", "default_host"),
    ("nvflare.lighter.constants", "PropKey.HOST_NAMES", "host_names"),
    ("nvflare.lighter.constants", "PropKey.ROLE", "role"),
    ("nvflare.apis.fl_constant", "ConfigVarName.CLIENT_OUTCOME_WAIT_TIMEOUT", "client_outcome_wait_timeout"),
    ("nvflare.apis.fl_constant", "ConfigVarName.DEAD_CLIENT_GRACE_PERIOD", "dead_client_grace_period"),
    ("nvflare.fuel.utils.config_service", "ENV_VAR_PREFIX", "NVFLARE_"),
    ("nvflare.apis.fl_constant", "AdminCommandNames.APP_COMMAND", "app_command"),
    ("nvflare.security.security", "CommandCategory.MANAGE_JOB", "manage_job"),
    ("nvflare.security.security", "CommandCategory.DOWNLOAD_JOB", "download_job"),
    ("nvflare.security.security", "CommandCategory.VIEW", "view"),
    ("nvflare.apis.fl_constant", "AdminCommandNames.SUBMIT_JOB", "submit_job"),
    ("nvflare.apis.fl_constant", "WorkspaceConstants.LOGGING_CONFIG", "log_config.json"),
    ("nvflare.apis.fl_constant", "WorkspaceConstants.AUTHORIZATION_CONFIG", "authorization.json"),
    ("nvflare.apis.fl_constant", "WorkspaceConstants.ADMIN_STARTUP_CONFIG", "fed_admin.json"),
    ("nvflare.apis.fl_constant", "WorkspaceConstants.CLIENT_STARTUP_CONFIG", "fed_client.json"),
    ("nvflare.apis.fl_constant", "WorkspaceConstants.SERVER_STARTUP_CONFIG", "fed_server.json"),
]

# What has no name of its own: a module of FLARE's, and what stands in its source.
WORDS = [
    # The roster stands before these two of the server's own; without them it would stand nowhere.
    ("nvflare.private.fed.server.fed_server", "cb=self._validate_auth_headers"),
    ("nvflare.private.fed.server.fed_server", "cb=self.register_client"),
    ("nvflare.fuel.f3.cellnet.core_cell", "message.set_prop(MessagePropKey.ENDPOINT, endpoint)"),
    ("nvflare.fuel.f3.cellnet.core_cell", "message.set_prop(MessagePropKey.COMMON_NAME, cn)"),
    ("nvflare.fuel.f3.sfm.conn_manager", "if endpoint_name == self.local_endpoint.name:"),  # nobody else is `server`
    ("nvflare.fuel.f3.sfm.conn_manager", "endpoint.conn_props.update(conn_props)"),
    ("nvflare.fuel.f3.drivers.grpc_driver", "DriverParams.PEER_ADDR.value: context.peer()"),  # `ipv4:...`
    ("nvflare.fuel.f3.drivers.aio_grpc_driver", "DriverParams.PEER_ADDR.value: context.peer()"),
    ("nvflare.fuel.f3.cellnet.connector_manager", "DriverParams.CONNECTION_SECURITY"),  # of `INTERNAL`
    ("nvflare.fuel.f3.drivers.net_utils", "ctx.verify_mode = ssl.CERT_REQUIRED"),
    ("nvflare.private.fed.server.server_json_config", "server.task_request_interval"),
    ("nvflare.private.fed.client.fed_client", "EventType.BEFORE_PULL_TASK"),
    ("nvflare.app_common.widgets.component_path_authorizer", '"class_list_enforcement_mode"'),
    ("nvflare.private.fed.app.client.client_train", '"heart_beat_interval"'),
    ("nvflare.private.fed.server.job_runner", "self.running_jobs"),
    ("nvflare.private.fed.server.server_engine", "self.run_processes"),
    ("nvflare.private.fed.server.job_runner", "EventType.JOB_STARTED"),
    ("nvflare.private.fed.server.fed_server", "EventType.CLIENT_HEARTBEAT_PROCESSED"),
    ("nvflare.apis.impl.wf_comm_server", "EventType.CLIENT_DISCONNECTED"),
    ("nvflare.private.fed.app.deployer.server_deployer", '"heart_beat_timeout"'),
]


def test_the_pinned_version_is_installed():
    assert version("nvflare") == "2.9.0"


@pytest.mark.parametrize(("module", "name", "arguments"), CALLS, ids=[call[1] for call in CALLS])
def test_flare_has_what_we_call(module, name, arguments):
    assert callable(check_call(module, name, arguments))


@pytest.mark.parametrize(("module", "name"), ERRORS, ids=[name for _, name in ERRORS])
def test_flares_session_still_raises(module, name):
    assert issubclass(part(module, name), Exception)


@pytest.mark.parametrize(("module", "name", "value"), VALUES, ids=[value[1] for value in VALUES])
def test_flare_has_the_words_that_we_write(module, name, value):
    check_value(module, name, value)


@pytest.mark.parametrize(("module", "word"), WORDS, ids=[word[1] for word in WORDS])
def test_flare_still_reads_or_fires(module, word):
    check_word(module, word)


@pytest.mark.parametrize("module", OURS, ids=[module.__name__ for module in OURS])
def test_every_name_that_we_import_of_flare_is_in_the_contract(module):
    errors = [(*error, "") for error in ERRORS]
    assert unlisted([module], [*CALLS, *VALUES, *errors], "nvflare") == set()
