/*
 * config_table: the members of a routes file, one row each; private to config.
 *
 * A table describes one kind of object.  The names of nested members are dotted ("listen.tls.key");
 * a row of an object stands above the rows of its members.  Parser, digest, comparison, schema and
 * reference are all made from the rows.
 */
#ifndef KEYTRAIL_CONFIG_TABLE_H
#define KEYTRAIL_CONFIG_TABLE_H

#include "keytrail/buf.h"
#include "keytrail/config.h"

#include "config_tree.h"

enum member_type {
	MEMBER_OBJECT, /* nested; its field, if any, is a bool: false where the file says null */
	MEMBER_BOOL,
	MEMBER_COUNT,	  /* a whole number */
	MEMBER_BYTES,	  /* a whole number of bytes, or "64MiB" */
	MEMBER_MS,	  /* a whole number of milliseconds, or "20ms", "5s", "1h" */
	MEMBER_US,	  /* of microseconds */
	MEMBER_SECONDS,	  /* of seconds, or "400d" */
	MEMBER_WORD,	  /* one of words */
	MEMBER_STRING,	  /* char *, length between min and max */
	MEMBER_PATH,	  /* char *, a file name, resolved against the folder of the file */
	MEMBER_ADDRESS,	  /* struct config_address: "host:port" */
	MEMBER_ADDRESSES, /* array of them; a lone string is an array of one */
	MEMBER_NETWORKS,  /* array of struct config_network */
	MEMBER_STRINGS,	  /* array of char * */
	MEMBER_SECRET,	  /* struct config_secret: {"file": "..."} */
	MEMBER_PAIR,	  /* an object of one member: name at the field, value at the second one */
	MEMBER_LIST,	  /* array of objects of another table */
	MEMBER_IGNORED,	  /* a string for editors */
};

enum member_flag {
	MEMBER_REQUIRED = 1,
	MEMBER_NULLABLE = 2,
	MEMBER_RESTART = 4,  /* HUP does not change it */
	MEMBER_VERBATIM = 8, /* no ${ENV} */
	MEMBER_LATER = 16,   /* read by config_routes.c, not by the table's parser */
	MEMBER_SYSTEM = 32,  /* a path, or the word "system" for none */
	MEMBER_KIND =
	    64, /* the word that says of which kind the object is; above rows `only` for some */
	MEMBER_OUTSIDE = 128, /* of a sink: what becomes of events before they come to it */
};

/* Checks of a string beyond its type: 0, or -1 and what was wanted. */
typedef int (*member_check_fn)(const char *value, struct err *err);

struct member_word {
	const char *name;
	unsigned value;
};

struct member_table;

struct member {
	const char *name;
	enum member_type type;
	unsigned flags;
	size_t field, size;   /* offset and size of the field; size 0: there is none */
	size_t second;	      /* offset of an array's count, and as the types say */
	const char *fallback; /* the default as JSON; NULL: none, the field stays as it is */
	uint64_t min, max;    /* of a number, a string's length, an array's */
	const struct member_word *words;
	member_check_fn check;
	const struct member_table *element; /* LIST */
	const char *choices; /* of a required one, said where it is missing, or NULL */
	unsigned only;	     /* kinds of the object that have it, one bit each; 0: all */
	const char *help;
};

struct member_table {
	const char *title; /* "the file" */
	const struct member *members;
	size_t n;
	size_t size; /* of the struct */
};

extern const struct member_table config_file_table;	   /* struct config */
extern const struct member_table config_sink_table;	   /* struct config_sink */
extern const struct member_table config_certificate_table; /* struct config_certificate */
extern const struct member_table config_token_table;	   /* struct config_admin_token */
extern const struct member_table config_header_table;	   /* struct config_header */
extern const struct member_table config_set_table;	   /* struct config_set */
extern const struct member_table config_route_table;	   /* struct config_route */

/* A set file, or the members of the file itself that say the same. */
struct config_set {
	char *name;
	char *default_action;
	char *correlation_header;
	unsigned correlation_grammar; /* CONFIG_GRAMMAR_UNSET, or a grammar */
	char *service_name, *service_crn_name, *service_type_uri;
};

#define CONFIG_GRAMMAR_UNSET UINT32_MAX

struct config_route {
	struct route_spec spec;
	char **aliases;
	size_t naliases;
};

/* What reading one file needs. */
struct config_reader {
	struct arena *arena; /* of the configuration: what it keeps */
	struct err *err;
};

/* The part of a dotted name after the object's, or NULL when the member is not directly in it. */
const char *member_in(const struct member *m, const char *object);

/* The row of MEMBER_KIND, where there is one, and the word that the object at base has there. */
const struct member *member_kind_row(const struct member_table *table);
const char *member_kind(const struct member_table *table, const void *base);

/* Is this row for objects of the kind of that at base? */
bool member_applies(const struct member_table *table, const struct member *m, const void *base);

/* The kinds that have it, quoted and with something between them; "" where all do. */
void member_kinds(const struct member_table *table, const struct member *m, const char *quote,
    const char *between, char *out, size_t n);

/* The object `prefix` of the table ("" for the whole) from a tree (NULL: absent; the defaults
 * stand) into base. */
int config_read_object(const struct config_reader *r, const struct member_table *table,
    const char *prefix, const struct tree *at, const struct tree *object, void *base);

/* file, as it is named in the source `from`; in the arena. */
char *config_resolve(struct arena *arena, const char *from, const char *file);

/* Numbers with a unit; 0, or -1 when the text is none. */
int config_bytes_of(const char *text, uint64_t *out);
/* Port 0 (any free one) is for callers to judge. */
int config_address_of(const char *text, struct slice *host, uint16_t *port);
int config_network_of(const char *text, struct config_network *out, struct err *err);

int config_read_secret(const struct config_reader *r, const struct tree *at, const char *name,
    struct config_secret *out);

/* routes and includes: fills the routes, the set's members and what the sets say of the service. */
int config_read_routes(const struct config_reader *r, const struct tree *root,
    const char *routes_dir, struct config *cfg);

/* SHA-256 of everything that the configuration resolved to. */
int config_digest(const struct config *c, char out[65], struct err *err);

int config_read_file(const char *path, struct arena *arena, struct source *out, struct err *err);

#endif
