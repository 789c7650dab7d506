#include "keytrail/event.h"

/* Every member of a line, and every detail of an event of the sidecar's own, has its row here: a test
 * looks for those of all trails that the others leave. */

static const struct {
	const char *name, *help;
} members[] = {
	{ "action", "Of the route; `audit.vocabulary` chooses today's names or those of 2019. A "
		    "request that cannot be parsed is `keytrail.refused`." },
	{ "correlationId",
	    "The answer's `Correlation-Id`, else the request's. keytrail adds one where the client "
	    "sent none: the event's `id`, which its own answers carry too." },
	{ "correlationSource", "`service`, `echoed` (the client's own came back), `request` (no "
			       "answer had one), `none`." },
	{ "dataEvent", "Of the route." },
	{ "details", "Of the sidecar's own events only, see below." },
	{ "eventTime", "When the request arrived, UTC." },
	{ "id", "UUIDv7, unique." },
	{ "initiator.authnId", "The claim `authn.iam_id`, where it is another than `iam_id`." },
	{ "initiator.claimed.id", "The claim `iam_id` while `verifiedBy` is `none`: anybody can "
				  "write a token that is answered 403 or 404." },
	{ "initiator.claimed.name", "The claim `sub`, as `audit.identity_name` says." },
	{ "initiator.credential.alternative",
	    "Where the certificate's subject is the `id`: its first DNS name, e-mail or IP "
	    "address." },
	{ "initiator.credential.subject", "The certificate's subject, where its URI is the `id`." },
	{ "initiator.credential.type",
	    "`apikey`, `user`, `token`, `certificate`, `public-access`." },
	{ "initiator.credential.verifiedBy", "`service` (a 2xx where the route needs a login), "
					     "`certificate`, `none`." },
	{ "initiator.host.address", "Of the client." },
	{ "initiator.host.addressType", "`IPv4`, `IPv6`." },
	{ "initiator.host.agent", "Product tokens of `User-Agent`." },
	{ "initiator.host.peer", "Who connected, where the address came from `X-Forwarded-For` of "
				 "a trusted network." },
	{ "initiator.id",
	    "The claim `iam_id`; with a client certificate its URI, else its subject, "
	    "else its first DNS name, e-mail or IP address, else `SHA256:` and its "
	    "fingerprint. Empty while `verifiedBy` is `none`." },
	{ "initiator.name",
	    "The claim `sub` as `audit.identity_name` says: `omit` (default, `\"\"`), "
	    "`hmac`, `plain`; while `verifiedBy` is `none` `unauthenticated` (401, a "
	    "refusal, no status, no token), `unparsable`, `unverified` (the service's "
	    "other answers)." },
	{ "initiator.typeURI", "`service/security/account/user`, `.../serviceid`, `.../profile`, "
			       "`service/security/client/certificateid`." },
	{ "kind", "`intent` in the line that precedes a call with that guarantee." },
	{ "logSourceCRN", "CRN of the instance: region and account from the file, account and "
			  "instance else from what the service has verified." },
	{ "message", "The service's name and the action in words, ` -failure` where it failed." },
	{ "observer.id", "`keytrail/<log id>`." },
	{ "observer.name", "`ActivityTracker`, as its readers know it." },
	{ "outcome", "`success` (2xx), `failure` (any other status), `unknown` (the request went "
		     "out, no status came), `pending` (intents only)." },
	{ "reason.reasonCode", "The status; left out where none came." },
	{ "reason.reasonForFailure",
	    "A refusal's label, `status <n>`, `client gone`. Of failures only." },
	{ "reason.reasonType",
	    "The status's phrase; or `timeout`, `connection_lost`, `client_gone`, "
	    "`malformed_answer`, `foreign_location`, `out_of_memory`, `shutdown`, `restart`, or "
	    "the "
	    "label of the refusal that cut a request already under way; `pending` in an intent." },
	{ "recovered", "`true` where a restart found the event in a ring or made it." },
	{ "requestData.attempts", "2 where the request was sent once more." },
	{ "requestData.instanceId", "`Bluemix-Instance`." },
	{ "requestData.keyRingId", "`X-Kms-Key-Ring`." },
	{ "requestData.method", "Of the request. What cannot be parsed has no `requestData`." },
	{ "requestData.path", "The route's template, never what was sent." },
	{ "requestData.shape", "Of a request that fits no route: known literals, `{uuid}`, `{n}`, "
			       "`{}`." },
	{ "requestData.unmatched", "`true` where it fits no route." },
	{ "responseHeader.content.correlationId",
	    "Where readers of 2019 look, when it came with the answer." },
	{ "saveServiceCopy", "`true`." },
	{ "severity",
	    "Of the route; the status may raise it: 401 403 503 507 critical; 400 409 424 "
	    "500 502 504 505 and `unknown` at least warning; a 2xx on a request that fits "
	    "no route critical." },
	{ "target.id", "The CRN again; with `audit.key_ids` `plain` and a UUID that of the key." },
	{ "target.keyRef", "With `audit.key_ids` `hmac`: a keyed hash of the key's id." },
	{ "target.name", "`\"\"`." },
	{ "target.typeURI", "`kms/secrets`, or what the route set says." },
	{ "trail.at", "When the journal wrote the line." },
	{ "trail.boot", "The run of the sidecar; with `seq` and `log` the identity of an event." },
	{ "trail.log", "The log." },
	{ "trail.seq", "The number of the line in the log." },
	{ "trail.sum", "CRC-32C of the line from `{` up to and without `,\"sum\"`." },
};

#define OPERATOR "operator operatorPid operatorUid role socket"

static const struct {
	const char *action, *details, *help;
} own[] = {
	{ "keytrail.access", "address call count filter first page reason sink token " OPERATOR,
	    "Each query of the trail (`filter`: names of its parameters only) and each operator's "
	    "`call`, with who asked, of a replay `sink` and the `first` event; how many requests "
	    "of the admin listener were refused, by "
	    "address "
	    "and reason, at most nine events a minute (beyond eight of these: `others`)." },
	{ "keytrail.checkpoint", "events note",
	    "A signed head: how many events, and its text in "
	    "base64." },
	{ "keytrail.clock", "from milliseconds to way when",
	    "A jump of the wall clock by more than a second, while running or stopped." },
	{ "keytrail.corrupt", "first last segments",
	    "Damaged lines, with their numbers: bytes between two lines have that of the second; "
	    "of a start the first and the last that it found, and lines between them may be there. "
	    "Or how many segments are not of this log." },
	{ "keytrail.degrade", "calls phase reason until " OPERATOR,
	    "When break-glass begins (critical) and how it ended; the start after a kill records "
	    "that (`restart`)." },
	{ "keytrail.expire", "first last", "Before these numbers are removed." },
	{ "keytrail.heartbeat", "", "That keytrail is there, every `audit.heartbeat`." },
	{ "keytrail.hold", "change first last name " OPERATOR,
	    "`add`, `remove` (before it is lifted), `reset` (all of them, where `holds` cannot be "
	    "believed), `found` (in force, though a change was cut short or failed)." },
	{ "keytrail.keep", "first last",
	    "What was to be removed stays after all: because of a hold, of more that is kept, or "
	    "of "
	    "a kill." },
	{ "keytrail.key", "note",
	    "Another key signs from now on; the statement of the one before." },
	{ "keytrail.loss", "actions count first initiators initiatorsCut last reason",
	    "What could not be recorded, by action (up to 32, the rest is `other`), with up to 32 "
	    "initiators, each cut at 64 characters. Of what somebody cut out of a ring "
	    "(`ring_cut`) "
	    "action and initiators are gone with it." },
	{ "keytrail.recover",
	    "fromRings fromSlots intentsClosed previousBoot tornBytes tornFirst tornLast",
	    "After an unclean stop: what was found and written, and what was torn. `fromSlots` "
	    "alone: the run that was taken over from was killed with these calls in flight." },
	{ "keytrail.refused", "count first last reasons sources sourcesCut",
	    "Refusals beyond `limits.refusals`, and clients whose certificate is missing, bad or "
	    "revoked, counted together by reason and source. Without `details`: one request that "
	    "could not be parsed." },
	{ "keytrail.reject", "count first last reason sink",
	    "What a sink refused for good: how many events between these numbers, and why it "
	    "refused the first. They are in its quarantine, it got stubs in their place. What it "
	    "refuses of these events is not told of again." },
	{ "keytrail.reload", "changes configDigest needsRestart signalPid signalUid",
	    "What changed, what needs a restart, who signalled; nobody where files were "
	    "replaced." },
	{ "keytrail.start",
	    "clean clock configDigest keepsLess maxSize newLog previousBoot previousMaxSize "
	    "previousRetentionSeconds retentionSeconds sandbox signing takeover version workers",
	    "Whether the run before ended well, whether the log is new, whether less is kept than "
	    "before, which parts of the sandbox are in force; `takeover`: the run before has not "
	    "ended yet." },
	{ "keytrail.stop", "boot takeover",
	    "The last event of a run. One that was taken over from is still served while its "
	    "successor records: it names its own `boot`." },
	{ "keytrail.tamper", "file first last mended note reason rings segment",
	    "Lines, files or rings are gone or not what they were; of a trail that goes on as a "
	    "new "
	    "log the last signed head, in base64." },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int
put_words(struct buf *out, const char *words)
{
	size_t n;

	for (const char *w = words; *w != '\0'; w += n + (w[n] == ' ')) {
		n = strcspn(w, " ");
		if (buf_printf(out, "%s`%.*s`", w == words ? "" : ", ", (int)n, w) == -1)
			return -1;
	}
	return 0;
}

int
event_reference(struct buf *out)
{
	if (buf_printf(out, "| member | what it says |\n|---|---|\n") == -1)
		return -1;
	for (size_t i = 0; i < COUNT(members); i++)
		if (buf_printf(out, "| `%s` | %s |\n", members[i].name, members[i].help) == -1)
			return -1;
	if (buf_printf(out,
		"\nThe sidecar's own life is in the same log. An event that is too long leaves "
		"details\nout and says `detailsCut`.\n\n"
		"| action | details | is recorded |\n|---|---|---|\n") == -1)
		return -1;
	for (size_t i = 0; i < COUNT(own); i++)
		if (buf_printf(out, "| `%s` | ", own[i].action) == -1 ||
		    put_words(out, own[i].details) == -1 ||
		    buf_printf(out, " | %s |\n", own[i].help) == -1)
			return -1;
	return 0;
}
