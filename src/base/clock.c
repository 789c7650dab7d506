#include "keytrail/clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t
read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * CLOCK_NS_PER_S + ts.tv_nsec;
}

int64_t
clock_mono_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

int64_t
clock_wall_ns(void)
{
	return read_clock(CLOCK_REALTIME);
}

int64_t
clock_boot_ns(void)
{
	return read_clock(CLOCK_BOOTTIME);
}

int64_t
clock_watch(struct clock_watch *w, int64_t wall_ns, int64_t steady_ns)
{
	bool first = w->wall_ns == 0;
	int64_t jump = wall_ns - w->wall_ns - (steady_ns - w->steady_ns);

	*w = (struct clock_watch){ wall_ns, steady_ns };
	return first || llabs(jump) <= CLOCK_JUMP_NS ? 0 : jump;
}

static void
digits(char *out, unsigned width, unsigned value)
{
	while (width-- > 0) {
		out[width] = (char)('0' + value % 10);
		value /= 10;
	}
}

/* Civil date from days since 1970-01-01 (proleptic Gregorian; Hinnant, "chrono-compatible date
 * algorithms"): gmtime_r takes a lock in some libraries and is slower than all the rest. */
static void
write_seconds(int64_t wall_ns, char *out)
{
	int64_t secs = wall_ns / CLOCK_NS_PER_S;
	int64_t days = secs / 86400;
	unsigned sod = (unsigned)(secs % 86400);
	int64_t z = days + 719468;
	unsigned doe = (unsigned)(z % 146097);
	unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	unsigned mp = (5 * doy + 2) / 153;
	unsigned day = doy - (153 * mp + 2) / 5 + 1;
	unsigned month = mp < 10 ? mp + 3 : mp - 9;
	unsigned year = yoe + (unsigned)(z / 146097) * 400 + (month <= 2);

	memcpy(out, "0000-00-00T00:00:00", 19);
	digits(out, 4, year);
	digits(out + 5, 2, month);
	digits(out + 8, 2, day);
	digits(out + 11, 2, sod / 3600);
	digits(out + 14, 2, sod / 60 % 60);
	digits(out + 17, 2, sod % 60);
}

void
clock_event_time(int64_t wall_ns, char out[CLOCK_EVENT_TIME_SIZE])
{
	if (wall_ns < 0)
		wall_ns = 0;
	write_seconds(wall_ns, out);
	memcpy(out + 19, ".00+0000", 9);
	digits(out + 20, 2, (unsigned)(wall_ns % CLOCK_NS_PER_S / 10000000));
}

/* As struct tm counts them: what is in nanoseconds since 1970 from 0 to INT64_MAX, but the last
 * year, of which there is but a part. */
enum { FIRST_YEAR = 1970 - 1900, LAST_YEAR = 2261 - 1900 };

int
clock_parse_event_time(struct slice text, int64_t *wall_ns)
{
	char copy[CLOCK_EVENT_TIME_SIZE];
	struct tm tm = { 0 };
	uint64_t hundredths;

	if (text.n != sizeof(copy) - 1)
		return -1;
	slice_to_cstr(text, copy, sizeof(copy));
	if (strptime(copy, "%Y-%m-%dT%H:%M:%S", &tm) != copy + 19 || copy[19] != '.' ||
	    strcmp(copy + 22, "+0000") != 0)
		return -1;
	if (slice_to_u64(slice_sub(text, 20, 22), &hundredths) == -1 || tm.tm_year < FIRST_YEAR ||
	    tm.tm_year > LAST_YEAR)
		return -1;
	*wall_ns = timegm(&tm) * CLOCK_NS_PER_S + (int64_t)hundredths * (CLOCK_NS_PER_S / 100);
	return 0;
}

static int
two_digits(const char *p)
{
	return (p[0] - '0') * 10 + p[1] - '0';
}

static int
in_range(const char *time)
{
	int month = two_digits(time + 5), day = two_digits(time + 8);

	return month >= 1 && month <= 12 && day >= 1 && day <= 31 && two_digits(time + 11) < 24 &&
	       two_digits(time + 14) < 60 && two_digits(time + 17) < 60;
}

int
clock_parse_time(const char *text, int last, char out[CLOCK_EVENT_TIME_SIZE])
{
	static const char first_time[] = "0000-01-01T00:00:00.00+0000";
	static const char last_time[] = "9999-12-31T23:59:59.99+0000";
	size_t n = strlen(text);

	memcpy(out, last ? last_time : first_time, CLOCK_EVENT_TIME_SIZE);
	if (n > 0 && text[n - 1] == 'Z')
		n--;
	if (n != 10 && n != 16 && n != 19)
		return -1;
	for (size_t i = 0; i < n; i++) {
		int digit = out[i] >= '0' && out[i] <= '9';

		if (digit ? text[i] < '0' || text[i] > '9' : text[i] != out[i])
			return -1;
		out[i] = text[i];
	}
	return in_range(out) ? 0 : -1;
}

void
clock_rfc3339(int64_t wall_ns, char out[CLOCK_RFC3339_SIZE])
{
	if (wall_ns < 0)
		wall_ns = 0;
	write_seconds(wall_ns, out);
	memcpy(out + 19, ".000Z", 6);
	digits(out + 20, 3, (unsigned)(wall_ns % CLOCK_NS_PER_S / CLOCK_NS_PER_MS));
}

void
clock_uuid7(int64_t wall_ns, const unsigned char random[10], char out[CLOCK_UUID_SIZE])
{
	static const char hex[] = "0123456789abcdef";
	uint64_t ms = (uint64_t)(wall_ns < 0 ? 0 : wall_ns) / CLOCK_NS_PER_MS;
	unsigned char b[16];
	char *o = out;

	for (unsigned i = 0; i < 6; i++)
		b[i] = (unsigned char)(ms >> (40 - 8 * i));
	memcpy(b + 6, random, 10);
	b[6] = (b[6] & 0x0f) | 0x70;
	b[8] = (b[8] & 0x3f) | 0x80;
	for (unsigned i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*o++ = '-';
		*o++ = hex[b[i] >> 4];
		*o++ = hex[b[i] & 15];
	}
	*o = '\0';
}
