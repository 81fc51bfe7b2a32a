/* An NVIDIA driver that has a device and runs nothing: its memory is the host's, and it writes down what it is asked.
 *
 * Whatever needs a current context is refused without one, as by a true driver; with REFUSE_PTX in the environment, so
 * is PTX, as by a driver older than it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS, INVALID_VALUE, INVALID_CONTEXT = 201, UNSUPPORTED_PTX_VERSION = 222, NOT_SUPPORTED = 801 };

#define SAY(...) (fprintf(stderr, "driver: " __VA_ARGS__), fputc('\n', stderr))
#define IN_A_CONTEXT                                 \
    if (depth == 0) {                                \
        SAY("%s without a context", __func__);       \
        return INVALID_CONTEXT;                      \
    }

static __thread void *contexts[64];
static __thread int depth;
static char primary[64];

/* ---------------------------------------------------------------------------------------------- the device */

int cuInit(unsigned flags) { return SUCCESS; }
int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, SUCCESS; }
int cuDeviceGetName(char *name, int length, int device) { return snprintf(name, length, "A GPU of tests"), SUCCESS; }
int cuDeviceGetUuid(void *uuid, int device) { return memset(uuid, 7, 16), SUCCESS; }
int cuDeviceTotalMem(size_t *bytes, int device) { return *bytes = 1ull << 36, SUCCESS; }
int cuMemGetInfo(size_t *free, size_t *total) { return *free = *total = 1ull << 36, SUCCESS; }

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    enum { MULTIPROCESSORS = 16, MAJOR = 75, MINOR = 76, PAGEABLE_MEMORY_ACCESS = 88 };
    switch (attribute) {
    case MULTIPROCESSORS: *value = 132; break;
    case MAJOR: *value = 9; break;
    case MINOR: case PAGEABLE_MEMORY_ACCESS: *value = 0; break;
    default: *value = 1;
    }
    return SUCCESS;
}

/* ---------------------------------------------------------------------------------------------- contexts */

int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = primary, SUCCESS; }
int cuDevicePrimaryCtxRelease(int device) { return SUCCESS; }
int cuDevicePrimaryCtxReset(int device) { return SUCCESS; }
int cuCtxGetCurrent(void **context) { return *context = depth ? contexts[depth - 1] : NULL, SUCCESS; }
int cuCtxPushCurrent(void *context) { return contexts[depth++] = context, SUCCESS; }

int cuCtxSetCurrent(void *context) {
    if (depth) depth--;
    if (context) contexts[depth++] = context;
    return SUCCESS;
}

int cuCtxPopCurrent(void **context) {
    IN_A_CONTEXT
    depth--;
    if (context) *context = contexts[depth];
    return SUCCESS;
}

int cuCtxGetDevice(int *device) { return depth ? (*device = 0, SUCCESS) : INVALID_CONTEXT; }
int cuCtxSynchronize(void) { IN_A_CONTEXT return SUCCESS; }

/* ---------------------------------------------------------------------------------------------- memory */

static struct { char *address; size_t bytes; } blocks[4096];
static int used;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int block_of(const char *address) {
    int i = used;
    while (--i >= 0 && !(blocks[i].address <= address && address < blocks[i].address + blocks[i].bytes));
    return i;
}

int cuMemAlloc(void **address, size_t bytes) {
    IN_A_CONTEXT
    if (posix_memalign(address, 512, bytes)) return 2;
    memset(*address, 0xA5, bytes);
    pthread_mutex_lock(&lock);
    blocks[used].address = *address;
    blocks[used++].bytes = bytes;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int cuMemFree(void *address) {
    IN_A_CONTEXT
    pthread_mutex_lock(&lock);
    int i = block_of(address);
    if (i >= 0) blocks[i] = blocks[--used];
    pthread_mutex_unlock(&lock);
    if (i < 0) return INVALID_VALUE;
    free(address);
    SAY("free");
    return SUCCESS;
}

int cuPointerGetAttribute(void *value, int attribute, void *address) {
    enum { MEMORY_TYPE = 2, DEVICE_ORDINAL = 9 };
    pthread_mutex_lock(&lock);
    int i = block_of(address);
    pthread_mutex_unlock(&lock);
    if (i < 0) return INVALID_VALUE;
    *(int *)value = attribute == MEMORY_TYPE ? 2 : 0;
    return SUCCESS;
}

int cuMemcpyHtoD(void *to, const void *from, size_t bytes) { IN_A_CONTEXT return memcpy(to, from, bytes), SUCCESS; }
int cuMemcpyDtoH(void *to, const void *from, size_t bytes) { IN_A_CONTEXT return memcpy(to, from, bytes), SUCCESS; }

int cuMemcpyHtoDAsync(void *to, const void *from, size_t bytes, void *stream) {
    IN_A_CONTEXT
    SAY("to the device, %zu bytes, stream %zu", bytes, (size_t)stream);
    memcpy(to, from, bytes);
    return SUCCESS;
}

int cuMemcpyDtoHAsync(void *to, const void *from, size_t bytes, void *stream) {
    IN_A_CONTEXT
    SAY("to the host, %zu bytes, stream %zu", bytes, (size_t)stream);
    memcpy(to, from, bytes);
    return SUCCESS;
}

/* ---------------------------------------------------------------------------------------------- streams, events */

int cuStreamSynchronize(void *stream) {
    IN_A_CONTEXT
    SAY("synchronize, stream %zu", (size_t)stream);
    return SUCCESS;
}

int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    IN_A_CONTEXT
    SAY("wait, stream %zu", (size_t)stream);
    return SUCCESS;
}

int cuEventRecord(void *event, void *stream) {
    IN_A_CONTEXT
    SAY("record, stream %zu", (size_t)stream);
    return SUCCESS;
}

int cuEventCreate(void **event, unsigned flags) { IN_A_CONTEXT return *event = malloc(8), SUCCESS; }
int cuEventDestroy(void *event) { return free(event), SUCCESS; }

/* ---------------------------------------------------------------------------------------------- kernels */

int cuLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
    int is_elf = memcmp(code, "\177ELF", 4) == 0;
    SAY("load %s", is_elf ? "machine code" : "PTX");
    if (!is_elf && getenv("REFUSE_PTX")) return UNSUPPORTED_PTX_VERSION;
    return *library = malloc(8), SUCCESS;
}

int cuLibraryUnload(void *library) { return SUCCESS; }
int cuLibraryGetKernel(void **kernel, void *library, const char *name) { return *kernel = malloc(8), SUCCESS; }
int cuKernelGetFunction(void **function, void *kernel) { return *function = kernel, SUCCESS; }
int cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) { return *value = 32, SUCCESS; }

static int launch(unsigned blocks_, unsigned threads, void *stream, void **arguments) {
    SAY("launch, %u blocks of %u, stream %zu", blocks_, threads, (size_t)stream);
    return **(size_t **)arguments ? SUCCESS : INVALID_VALUE; /* the address of the logits */
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    IN_A_CONTEXT
    return launch(x * y * z, threads * ty * tz, stream, arguments);
}

struct configuration { unsigned x, y, z, threads, ty, tz, shared; void *stream; };

int cuLaunchKernelEx(const struct configuration *how, void *function, void **arguments, void **extra) {
    IN_A_CONTEXT
    return launch(how->x * how->y * how->z, how->threads * how->ty * how->tz, how->stream, arguments);
}

/* ---------------------------------------------------------------------------------------------- errors, symbols */

int cuGetErrorString(int error, const char **text) { return *text = "an error of tests", SUCCESS; }
int cuGetErrorName(int error, const char **text) { return *text = "CUDA_ERROR_OF_TESTS", SUCCESS; }

static int missing(void) { return NOT_SUPPORTED; }

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    Dl_info self;
    dladdr((void *)cuInit, &self);
    *function = dlsym(dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD), name);
    if (strcmp(name, "cuGetProcAddress") == 0) *function = (void *)cuGetProcAddress_v2;
    if (*function == NULL) *function = (void *)missing;
    if (status) *status = 0;
    return SUCCESS;
}
