/** A scan or a model that cannot be used; the message is the one sentence that the user sees. */
export class InputError extends Error {
  override name = "InputError";
}
