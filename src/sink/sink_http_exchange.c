#include "sink_http_exchange.h"

#include "keytrail/buf.h"
#include "keytrail/clock.h"

#include <curl/curl.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_MS   30000L
#define CONNECT_MS   10000L
#define ANSWER_MAX   ((size_t)4 << 20)
#define FIELDS_MAX   ((size_t)64 << 10)
#define RETRY_MAX_NS (300 * CLOCK_NS_PER_S)

struct exchange {
	CURLM *multi;
	CURL *easy;
	char *url;
	struct curl_slist *headers, *connect_to;
	bool running;
	struct buf answer;
	size_t fields; /* bytes of the head */
	bool too_large;
	unsigned status;
	int64_t retry_after_ns;
};

/* ---- what curl brings ---- */

static size_t
take_body(char *p, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;

	x->too_large = size * n > ANSWER_MAX - buf_size(&x->answer);
	return x->too_large || buf_append(&x->answer, p, size * n) == -1 ? 0 : size * n;
}

static size_t
take_field(char *p, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;

	(void)p;
	x->fields += size * n;
	x->too_large = x->fields > FIELDS_MAX;
	return x->too_large ? 0 : size * n;
}

/* ---- set-up ---- */

static CURLcode
set_bounds(struct exchange *x)
{
	CURL *c = x->easy;
	CURLcode rc = curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);

	rc |= curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
	rc |= curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, REQUEST_MS);
	rc |= curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	rc |= curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	rc |= curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	rc |= curl_easy_setopt(c, CURLOPT_USERAGENT, "keytrail/" KEYTRAIL_VERSION);
	rc |= curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
	rc |= curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
	rc |= curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, take_field);
	rc |= curl_easy_setopt(c, CURLOPT_HEADERDATA, x);
	rc |= curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	/* Each handshake is by the files as they are then: curl keeps authorities for a day, and a
	 * resumed session asks for no certificate. */
	rc |= curl_easy_setopt(c, CURLOPT_CA_CACHE_TIMEOUT, 0L);
	rc |= curl_easy_setopt(c, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	rc |= curl_easy_setopt(c, CURLOPT_POST, 1L);
	return rc;
}

/* As OpenSSL finds the system's, which is not where curl was told when it was built. */
static const char *
authorities(const struct config_tls *tls)
{
	return tls->ca != NULL ? tls->ca : getenv(X509_get_default_cert_file_env());
}

static long
lowest(const struct config_tls *tls)
{
	return tls->tls13 ? CURL_SSLVERSION_TLSv1_3 : CURL_SSLVERSION_TLSv1_2;
}

/* What the environment says of proxies does not count.  One over TLS is verified as the receiver is. */
static CURLcode
set_proxy(CURL *c, const char *proxy, const struct config_tls *tls)
{
	CURLcode rc = curl_easy_setopt(c, CURLOPT_PROXY, proxy != NULL ? proxy : "");

	rc |= curl_easy_setopt(c, CURLOPT_NOPROXY, "");
	rc |= curl_easy_setopt(c, CURLOPT_PROXY_SSLVERSION, lowest(tls));
	if (authorities(tls) != NULL)
		rc |= curl_easy_setopt(c, CURLOPT_PROXY_CAINFO, authorities(tls));
	if (tls->ca != NULL)
		rc |= curl_easy_setopt(c, CURLOPT_PROXY_CAPATH, NULL);
	return rc;
}

static CURLcode
set_tls(CURL *c, const struct config_tls *tls)
{
	CURLcode rc = curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);

	rc |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
	rc |= curl_easy_setopt(c, CURLOPT_SSLVERSION, lowest(tls));
	if (authorities(tls) != NULL)
		rc |= curl_easy_setopt(c, CURLOPT_CAINFO, authorities(tls));
	if (tls->ca != NULL)
		rc |= curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
	if (tls->certificate != NULL) {
		rc |= curl_easy_setopt(c, CURLOPT_SSLCERT, tls->certificate);
		rc |= curl_easy_setopt(c, CURLOPT_SSLKEY, tls->key);
	}
	return rc;
}

/* The URL under the name that the server's certificate has, and where to connect for it. */
static int
rename_server(struct exchange *x, const char *url, const char *name)
{
	CURLU *u = curl_url();
	char *host = NULL, *port = NULL, *renamed = NULL;
	struct buf to = BUF_INIT;
	size_t n;
	int rc = -1;

	if (u != NULL && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
	    curl_url_set(u, CURLUPART_HOST, name, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_URL, &renamed, 0) == CURLUE_OK &&
	    buf_printf(&to, "::%s:%s", host, port) != -1 && buf_append(&to, "", 1) == 0 &&
	    (x->connect_to = curl_slist_append(NULL, buf_slice(&to).p)) != NULL &&
	    curl_easy_setopt(x->easy, CURLOPT_CONNECT_TO, x->connect_to) == CURLE_OK) {
		/* curl adds the slash of an empty path; a preset's begins with one. */
		n = strlen(renamed);
		n -= renamed[n - 1] == '/' && url[strlen(url) - 1] != '/';
		rc = (x->url = strndup(renamed, n)) != NULL ? 0 : -1;
	}
	buf_fini(&to);
	curl_free(renamed);
	curl_free(port);
	curl_free(host);
	curl_url_cleanup(u);
	return rc;
}

static int
set_up(struct exchange *x, const struct config_sink *cfg, const struct config_tls *server,
    const char *url)
{
	bool tls = strncmp(url, "https:", 6) == 0;
	CURLcode rc = set_bounds(x);

	rc |= curl_easy_setopt(x->easy, CURLOPT_PROTOCOLS_STR, tls ? "https" : "http");
	rc |= set_proxy(x->easy, cfg->http.proxy, &cfg->tls);
	rc |= tls ? set_tls(x->easy, server) : CURLE_OK;
	if (rc != CURLE_OK)
		return -1;
	if (tls && server->server_name != NULL)
		return rename_server(x, url, server->server_name);
	return (x->url = strdup(url)) != NULL ? 0 : -1;
}

int
exchange_new(const struct config_sink *cfg, const struct config_tls *tls, const char *url,
    struct exchange **out, struct err *err)
{
	struct exchange *x = calloc(1, sizeof(*x));

	if (x == NULL)
		return err_set(err, "%s: memory is short", url);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
	    (x->easy = curl_easy_init()) == NULL || (x->multi = curl_multi_init()) == NULL ||
	    set_up(x, cfg, tls, url) == -1) {
		exchange_free(x);
		return err_set(err, "%s: libcurl could not be set up", url);
	}
	*out = x;
	return 0;
}

void
exchange_free(struct exchange *x)
{
	if (x == NULL)
		return;
	exchange_give_up(x);
	curl_easy_cleanup(x->easy);
	curl_multi_cleanup(x->multi);
	curl_slist_free_all(x->connect_to);
	buf_fini(&x->answer);
	free(x->url);
	free(x);
}

/* ---- a request ---- */

int
exchange_header(struct exchange *x, const char *name, struct slice value, struct err *err)
{
	struct buf line = BUF_INIT;
	struct curl_slist *list = NULL;

	if (buf_printf(&line, "%s: ", name) == 0 && buf_append_slice(&line, value) == 0 &&
	    buf_append(&line, "", 1) == 0)
		list = curl_slist_append(x->headers, buf_slice(&line).p);
	buf_fini(&line);
	if (list == NULL)
		return err_set(err, "%s: memory is short", x->url);
	x->headers = list;
	return 0;
}

static void
drop_headers(struct exchange *x)
{
	for (struct curl_slist *h = x->headers; h != NULL; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(x->headers);
	x->headers = NULL;
}

static int
set_url(struct exchange *x, const char *path)
{
	struct buf url = BUF_INIT;
	int rc = -1;

	if (buf_printf(&url, "%s%s", x->url, path) == 0 && buf_append(&url, "", 1) == 0 &&
	    curl_easy_setopt(x->easy, CURLOPT_URL, buf_slice(&url).p) == CURLE_OK)
		rc = 0;
	buf_fini(&url);
	return rc;
}

static int
start(struct exchange *x, struct err *err)
{
	buf_consume(&x->answer, buf_size(&x->answer));
	x->fields = 0;
	x->too_large = false;
	x->status = 0;
	x->retry_after_ns = 0;
	if (curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->headers) != CURLE_OK ||
	    curl_multi_add_handle(x->multi, x->easy) != CURLM_OK)
		return err_set(err, "%s: libcurl takes no request", x->url);
	x->running = true;
	return 0;
}

int
exchange_begin(struct exchange *x, const char *path, struct slice body, struct err *err)
{
	/* Whether to send the body is not asked first: it costs a turn, or a second. */
	if (exchange_header(x, "Expect", SLICE_EMPTY, err) == -1)
		return -1;
	if (set_url(x, path) == -1 ||
	    curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, body.p) != CURLE_OK ||
	    curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n) != CURLE_OK)
		return err_set(err, "%s: memory is short", x->url);
	return start(x, err);
}

int
exchange_look(struct exchange *x, struct err *err)
{
	if (set_url(x, "") == -1 || curl_easy_setopt(x->easy, CURLOPT_NOBODY, 1L) != CURLE_OK)
		return err_set(err, "%s: memory is short", x->url);
	return start(x, err);
}

bool
exchange_running(const struct exchange *x)
{
	return x->running;
}

void
exchange_give_up(struct exchange *x)
{
	if (x->running)
		curl_multi_remove_handle(x->multi, x->easy);
	x->running = false;
	drop_headers(x);
}

/* ---- its end ---- */

/* In words that no server chose. */
static int
explain(struct exchange *x, CURLcode rc, struct err *err)
{
	long verify = X509_V_OK, verify_proxy = X509_V_OK, tunnel = 0;

	if (x->too_large)
		return err_set(err, "%s: the answer is too large", x->url);
	curl_easy_getinfo(x->easy, CURLINFO_HTTP_CONNECTCODE, &tunnel);
	if (tunnel != 0 && tunnel / 100 != 2)
		return err_set(err, "%s: the proxy does not connect (status %ld)", x->url, tunnel);
	curl_easy_getinfo(x->easy, CURLINFO_SSL_VERIFYRESULT, &verify);
	curl_easy_getinfo(x->easy, CURLINFO_PROXY_SSL_VERIFYRESULT, &verify_proxy);
	if (rc == CURLE_PEER_FAILED_VERIFICATION && verify_proxy != X509_V_OK)
		return err_set(err, "%s: the proxy's certificate: %s", x->url,
		    X509_verify_cert_error_string(verify_proxy));
	if (rc == CURLE_PEER_FAILED_VERIFICATION && verify != X509_V_OK)
		return err_set(err, "%s: the server's certificate: %s", x->url,
		    X509_verify_cert_error_string(verify));
	return err_set(err, "%s: %s", x->url, curl_easy_strerror(rc));
}

static void
note_answer(struct exchange *x)
{
	curl_off_t seconds = 0;
	long status = 0;

	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &seconds);
	x->status = (unsigned)status;
	x->retry_after_ns =
	    seconds > RETRY_MAX_NS / CLOCK_NS_PER_S ? RETRY_MAX_NS : seconds * CLOCK_NS_PER_S;
}

/* 0: it is not over. */
static int
look(struct exchange *x, struct err *err)
{
	const CURLMsg *msg;
	CURLcode rc;
	int left;

	if ((msg = curl_multi_info_read(x->multi, &left)) == NULL || msg->msg != CURLMSG_DONE)
		return 0;
	rc = msg->data.result;
	if (rc == CURLE_OK)
		note_answer(x);
	else
		explain(x, rc, err);
	exchange_give_up(x);
	return rc == CURLE_OK ? 1 : -1;
}

int
exchange_wait(struct exchange *x, int64_t deadline_ns, struct err *err)
{
	int64_t left;
	int active, rc;

	for (;;) {
		if (curl_multi_perform(x->multi, &active) != CURLM_OK) {
			exchange_give_up(x);
			return err_set(err, "%s: libcurl could not go on", x->url);
		}
		if ((rc = look(x, err)) != 0)
			return rc;
		if ((left = deadline_ns - clock_mono_ns()) <= 0)
			return 0;
		curl_multi_poll(x->multi, NULL, 0, (int)(left / CLOCK_NS_PER_MS) + 1, NULL);
	}
}

struct http_reply
exchange_reply(const struct exchange *x)
{
	return (struct http_reply){ x->status, buf_slice(&x->answer) };
}

int64_t
exchange_retry_after_ns(const struct exchange *x)
{
	return x->retry_after_ns;
}
