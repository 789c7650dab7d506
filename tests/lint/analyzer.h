/* Included first by the static analyzers, which look at one file at a time: these return -1. */
#include "keytrail/err.h"

#define err_set(...)	   (err_set(__VA_ARGS__), -1)
#define err_set_errno(...) (err_set_errno(__VA_ARGS__), -1)
#define err_prefix(...)	   (err_prefix(__VA_ARGS__), -1)
