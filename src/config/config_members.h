/*
 * config_members: what the tables of members share: the shape of a row, and what values several of
 * them have; private to config.
 */
#ifndef KEYTRAIL_CONFIG_MEMBERS_H
#define KEYTRAIL_CONFIG_MEMBERS_H

#include "config_table.h"

#include <stddef.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define TIB	     (UINT64_C(1) << 40)
#define DAY_S	     UINT64_C(86400)

/* Where a row keeps its value: offset and size of a member of a struct. */
#define AT(type, member)	  .field = offsetof(type, member), .size = sizeof(((type *)0)->member)
#define WITH(type, second_member) .second = offsetof(type, second_member)

extern const struct member_word config_guarantee_words[], config_grammar_words[],
    config_format_words[];

/* As member_check_fn. */
int config_check_name(const char *value, struct err *err);
int config_check_crn_word(const char *value, struct err *err);
int config_check_text(const char *value, struct err *err);
int config_check_header(const char *value, struct err *err);
int config_check_server_name(const char *value, struct err *err);

#endif
