"""Every error the provider answers with, as data; the words are the provider's own.

Sources: the recorded traffic and FACTS sections 1 to 3.4. A kind marked "reported" has its words
from public issue reports; one marked "guess" has its code or status from there and words like
those of its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class ApiError(Exception):
    """An answer that is not 2xx."""

    def __init__(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Kind:
    """One error: status, words with holes, and the two members that tell it from others."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    type: str = "invalid_request_error"

    def error(self, **holes: object) -> ApiError:
        """Fill the holes and return the error."""
        return ApiError(self.status, {"error": self.fields(**holes)})

    def fields(self, **holes: object) -> dict[str, Any]:
        """Return the inner error object with the holes filled."""
        return {
            "message": self.message.format(**holes),
            "type": self.type,
            "param": self.param.format(**holes) if self.param else None,
            "code": self.code,
        }


# Request and routing
# Reported.
NO_KEY = Kind(
    401,
    "You didn't provide an API key. You need to provide your API key in an Authorization header"
    " using Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with"
    " blank username) if you're accessing the API from your browser and are prompted for a"
    " username and password. You can obtain an API key from"
    " https://platform.openai.com/account/api-keys.",
)
INVALID_URL = Kind(404, "Invalid URL ({method} {path})")
# Guess.
METHOD_NOT_ALLOWED = Kind(
    405, "Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different method?)"
)
INVALID_JSON = Kind(
    400,
    "Invalid body: failed to parse JSON value. Please check the value to ensure it is valid JSON."
    " (Common errors include trailing commas, missing closing brackets, missing quotation marks,"
    " etc.)",
    code="invalid_json",
)
# Reported.
NO_BETA = Kind(
    400,
    "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again by"
    " setting the header 'OpenAI-Beta: assistants=v2'.",
    code="invalid_beta",
)

# Values
MISSING = Kind(
    400, "Missing required parameter: '{param}'.", "{param}", "missing_required_parameter"
)
UNKNOWN_PARAMETER = Kind(400, "Unknown parameter: '{param}'.", "{param}", "unknown_parameter")
INVALID_TYPE = Kind(
    400,
    "Invalid type for '{param}': expected {expected}, but got {got} instead.",
    "{param}",
    "invalid_type",
)
INVALID_VALUE = Kind(
    400,
    "Invalid value: '{value}'. Supported values are: {supported}.",
    "{param}",
    "invalid_value",
)
ID_CHARACTERS = Kind(
    400,
    "Invalid '{param}': '{value}'. Expected an ID that contains letters, numbers, underscores, or"
    " dashes, but this value contained additional characters.",
    "{param}",
    "invalid_value",
)
ID_PREFIX = Kind(
    400,
    "Invalid '{param}': '{value}'. Expected an ID that begins with '{prefix}'.",
    "{param}",
    "invalid_value",
)
# FACTS 3.4 gives the input of a response a code of its own; 2.1 records the other for items.
INPUT_ID_PREFIX = Kind(
    400,
    "Invalid '{param}': '{value}'. Expected an ID that begins with '{prefix}'.",
    "{param}",
    "invalid_id_prefix",
)
STRING_TOO_LONG = Kind(
    400,
    "Invalid '{param}': string too long. Expected a string with maximum length {limit}, but got a"
    " string with length {length} instead.",
    "{param}",
    "string_above_max_length",
)
ARRAY_TOO_LONG = Kind(
    400,
    "Invalid '{param}': array too long. Expected an array with maximum length {limit}, but got an"
    " array with length {length} instead.",
    "{param}",
    "array_above_max_length",
)
CONTEXT_TOO_LONG = Kind(
    400,
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "input",
    "context_length_exceeded",
)
# Guess, but for the code (FACTS 2).
EMPTY_ARRAY = Kind(
    400,
    "Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty"
    " array instead.",
    "{param}",
    "empty_array",
)
# Guess.
TOO_MANY_PROPERTIES = Kind(
    400,
    "Invalid '{param}': too many properties. Expected an object with at most {limit} properties,"
    " but got an object with {length} properties instead.",
    "{param}",
    "object_above_max_properties",
)
INTEGER_TOO_BIG = Kind(
    400,
    "Invalid '{param}': integer above maximum value. Expected a value <= {limit}, but got {value}"
    " instead.",
    "{param}",
    "integer_above_max_value",
)
INTEGER_TOO_SMALL = Kind(
    400,
    "Invalid '{param}': integer below minimum value. Expected a value >= {limit}, but got {value}"
    " instead.",
    "{param}",
    "integer_below_min_value",
)

# Responses (FACTS 3.1, 3.3, 3.4)
MUTUALLY_EXCLUSIVE = Kind(
    400,
    "Mutually exclusive parameters: ''. Ensure you are only providing one of: 'pre..._id' or"
    " 'conversation'.",
    code="mutually_exclusive_parameters",
)
PREVIOUS_RESPONSE_NOT_FOUND = Kind(
    400,
    "Previous response with id '{id}' not found.",
    "previous_response_id",
    "previous_response_not_found",
)
RESPONSE_NOT_FOUND = Kind(404, "Response with id '{id}' not found.")
# Reported.
NOT_BACKGROUND = Kind(400, "Cannot cancel a synchronous response.")
# Guess; that it is refused is FACTS 2.
BACKGROUND_NEEDS_STORE = Kind(400, "Background mode requires 'store' to be true.", "background")
# The second sentence is reported; FACTS 3.4 has the first.
DUPLICATE_ITEM = Kind(
    400,
    "Duplicate item found with id {id}. Remove duplicate items from your input and try again.",
    "input",
)
INPUT_ITEM_NOT_FOUND = Kind(
    404,
    "Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try"
    " again with `store` set to true, or remove this item from your input.",
    "input",
)
REASONING_WITHOUT_FOLLOWER = Kind(
    400,
    "Item '{id}' of type 'reasoning' was provided without its required following item.",
    "input",
)
ITEM_WITHOUT_REASONING = Kind(
    400,
    "Item '{id}' of type '{type}' was provided without its required 'reasoning' item:"
    " '{reasoning}'.",
    "input",
)
# The kind is the item's type with blanks; reported of function, custom tool, shell, apply patch,
# tool search and computer calls.
NO_TOOL_OUTPUT = Kind(400, "No tool output found for {kind} {call_id}.", "input")
NO_TOOL_CALL = Kind(400, "No tool call found for {kind} with call_id {call_id}.", "input")
# Reported, but for the code (vercel/ai#15193, earendil-works/pi#7709).
MISSING_NAMESPACE = Kind(
    400,
    "Missing namespace for function_call '{name}'. It does not exist in the default namespace."
    " Round-trip the model's function_call item with its namespace field included.",
    "{param}",
)
# Guess; that a response is tied to its request by id is told by the SDK's documentation.
NO_APPROVAL_REQUEST = Kind(400, "No approval request found with id '{id}'.", "input")
# Guess; the SDK documents the rule.
TRIGGER_NOT_LAST = Kind(
    400, "Invalid '{param}': 'compaction_trigger' must be the final input item.", "{param}"
)
FOREIGN_ENCRYPTED = Kind(
    400,
    "The encrypted content for item {id} could not be verified. Reason: Encrypted content"
    " organization_id did not match the target organization.",
    code="invalid_encrypted_content",
)
BAD_ENCRYPTED = Kind(
    400,
    "The encrypted content for item {id} could not be verified. Reason: Encrypted content could"
    " not be decrypted or parsed.",
    code="invalid_encrypted_content",
)
# Reported.
CONTEXT_TOO_LONG = Kind(
    400,
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "input",
    "context_length_exceeded",
)
UNSUPPORTED_PARAMETER = Kind(
    400, "Unsupported parameter: '{param}' is not supported with this model.", "{param}"
)
# Reported.
MODEL_NOT_FOUND = Kind(
    404,
    "The model `{model}` does not exist or you do not have access to it.",
    code="model_not_found",
)

# Conversations (FACTS 2, 2.1)
CONVERSATION_NOT_FOUND = Kind(404, "Conversation with id '{id}' not found.")
CONVERSATION_LOCKED = Kind(
    400,
    "Another process is currently operating on this conversation. Please retry in a few seconds.",
    "conversation",
    "conversation_locked",
)
ITEM_NOT_IN_CONVERSATION = Kind(404, "Item with id '{id}' not found in conversation.")
ITEM_NOT_FOUND = Kind(404, "Item with id '{id}' not found.")
CURSOR_NOT_FOUND = Kind(404, "No item found with id '{id}'", "after")
ITEM_ALREADY_THERE = Kind(
    400, "Item already in conversation", "items", "item_already_in_conversation"
)
INVALID_ITEM = Kind(400, "Invalid item", "item", "invalid_item")

# Threads (FACTS 1)
THREAD_NOT_FOUND = Kind(404, "No thread found with id '{id}'.")
# The next four: guess, worded like the thread.
MESSAGE_NOT_FOUND = Kind(404, "No message found with id '{id}'.")
RUN_NOT_FOUND = Kind(404, "No run found with id '{id}'.")
STEP_NOT_FOUND = Kind(404, "No run step found with id '{id}'.")
ASSISTANT_NOT_FOUND = Kind(404, "No assistant found with id '{id}'.")
# Reported, for the routes of the object itself and for what names it.
NO_SUCH_FILE = Kind(404, "No such File object: {id}", "id")
VECTOR_STORE_NOT_FOUND = Kind(404, "No vector store found with id '{id}'.")
# Guess, worded like the vector store.
FILE_NOT_FOUND = Kind(404, "No file found with id '{id}'.")
RUN_ACTIVE_MESSAGE = Kind(400, "Can't add messages to {thread} while a run {run} is active.")
# Reported, as are the texts about tool outputs and cancelling.
RUN_ACTIVE_RUN = Kind(400, "Thread {thread} already has an active run {run}.")
NO_TOOL_OUTPUTS_WANTED = Kind(400, 'Runs in status "{status}" do not accept tool outputs.')
WRONG_TOOL_OUTPUTS = Kind(400, "Expected tool outputs for call_ids {expected}, got {got}")
CANNOT_CANCEL_RUN = Kind(400, "Cannot cancel run with status '{status}'.")

# Faults
RATE_LIMITED = Kind(
    429,
    "Rate limit reached for requests. Please try again in 20ms.",
    code="rate_limit_exceeded",
    type="requests",
)
SERVER_ERROR = Kind(
    500,
    "The server had an error while processing your request. Sorry about that!",
    type="server_error",
)
ORDERED_STATUS = Kind(400, "This status was ordered.")
API_RETIRED = Kind(410, "The Assistants API has been retired", code="assistants_api_deprecated")
