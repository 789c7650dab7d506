#include "config_members.h"

const struct member_word config_guarantee_words[] = {
	{ "async", GUARANTEE_ASYNC },
	{ "durable", GUARANTEE_DURABLE },
	{ "intent", GUARANTEE_INTENT },
	{ NULL, 0 },
};

const struct member_word config_grammar_words[] = {
	{ "uuid", SCRUB_UUID },
	{ "id", SCRUB_CORRELATION },
	{ NULL, 0 },
};

int
config_check_name(const char *value, struct err *err)
{
	if (!scrub_fits(SCRUB_IDENTIFIER, slice_of(value)))
		return err_set(err, "wanted letters, digits, '-' and '_', at most 64");
	return 0;
}

int
config_check_crn_word(const char *value, struct err *err)
{
	if (strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-/") != strlen(value))
		return err_set(err, "wanted lower-case letters, digits, '-' and '/'");
	return 0;
}

int
config_check_text(const char *value, struct err *err)
{
	for (const char *p = value; *p != '\0'; p++)
		if (*p < 0x20 || *p > 0x7e)
			return err_set(err, "wanted printable ASCII");
	return 0;
}

int
config_check_header(const char *value, struct err *err)
{
	return route_check_discriminator(value, "-", true, err);
}

int
config_check_server_name(const char *value, struct err *err)
{
	/* ".example.com" would stand for every name below it. */
	if (value[0] == '.' ||
	    strspn(value, "abcdefghijklmnopqrstuvwxyz"
			  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:") != strlen(value))
		return err_set(err, "wanted a host name without a port, or an address");
	return 0;
}
