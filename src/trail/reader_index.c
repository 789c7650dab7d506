#include "reader_internal.h"

#define REST	 9 /* times as long as it worked: a tenth of a processor */
#define LOOK_NS	 CLOCK_NS_PER_S
#define RETRY_NS (60 * CLOCK_NS_PER_S)

int64_t
reader_index_make(struct reader_index *ri)
{
	int64_t begin = clock_mono_ns(), end;
	struct err err;
	int rc = trail_index_make(ri->index, ri->keep_free, &err);

	end = clock_mono_ns();
	return end + (rc == 1 ? REST * (end - begin) : rc == 0 ? LOOK_NS : RETRY_NS);
}
