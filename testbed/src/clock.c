// Another wall clock for one process: LD_PRELOADed, it adds to CLOCK_REALTIME as many seconds as the file named by
// EKIDEN_CLOCK holds (eight bytes, the machine's order), whenever it is asked. The machine's own clock is not touched.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const long long *offset;
static int (*real)(clockid_t, struct timespec *);

// Before main, and so before the hub gives up what it does not need.
__attribute__((constructor)) static void prepare(void)
{
	const char *path = getenv("EKIDEN_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(*offset), PROT_READ, MAP_SHARED, file, 0);
	real = dlsym(RTLD_NEXT, "clock_gettime");
	if (mapped == MAP_FAILED || !real)
		abort();
	close(file);
	offset = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	// Whoever asks before the constructor has run gets the real time.
	if (!real)
		return syscall(SYS_clock_gettime, clock, time);
	int result = real(clock, time);
	if (result == 0 && clock == CLOCK_REALTIME)
		time->tv_sec += *offset;
	return result;
}
