/*
 * reader_internal: what the reader does when nobody asks.
 */
#ifndef KEYTRAIL_READER_INTERNAL_H
#define KEYTRAIL_READER_INTERNAL_H

#include "keytrail/reader.h"

struct reader_index {
	struct trail_index *index;
	uint64_t keep_free;
};

/* A piece of the indexes; when the next one is due, on the monotonic clock. */
int64_t reader_index_make(struct reader_index *ri);

#endif
