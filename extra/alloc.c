/* SPDX-License-Identifier: MIT */
/*
 * alloc: malloc and free from nothing but mmap, mremap and munmap.
 *
 *     a chunk begins at a multiple of 1 MiB; its blocks have one size
 *     +--------+------+------+------+------+- - - - - - -+
 *     | header | live | free | live | free |  never used |
 *     +--------+------+------+------+------+- - - - - - -+
 *     | header | live: one block of more than 64 KiB            |
 *     +--------+------------------------------------------------+
 *
 *     ./extra/alloc
 *     LD_PRELOAD=extra/alloc.so ls -l
 *
 * malloc(3), mmap(2), mremap(2); ld.so(8) explains LD_PRELOAD.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* To experiment, change these lines. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_PRIVATE | MAP_ANONYMOUS;

/* In bytes. PAGE is the largest page there is, and so a multiple of yours. */
enum { UNIT = 16, PAGE = 1 << 16, SMALL = 1 << 16, CHUNK = 1 << 20 };
#define ROUND_UP(size, unit) (((size) + (unit)-1) & -(size_t)(unit))

/* A small block has the first of these sizes that is large enough. If what is
   asked for is a multiple of an alignment, this size is one, too. */
static const size_t sizes[] = {
    16,    32,    48,    64,    80,    96,    112,   128,   160,
    192,   224,   256,   320,   384,   448,   512,   640,   768,
    896,   1024,  1280,  1536,  1792,  2048,  2560,  3072,  3584,
    4096,  5120,  6144,  7168,  8192,  10240, 12288, 14336, 16384,
    20480, 24576, 28672, 32768, 40960, 49152, 57344, 65536};
enum { CLASSES = sizeof sizes / sizeof *sizes, LARGE = -1 };

enum state { NEVER, LIVE, FREED };
struct chunk {
    struct chunk *next;    /* the next with free blocks of this class */
    int class;             /* of its blocks, or LARGE: it has only one */
    size_t size;           /* of a block */
    size_t length;         /* of the mapping */
    size_t used;           /* so many blocks live */
    char *free;            /* the first free block, or `end` */
    char *end;             /* where the blocks end */
    unsigned char state[]; /* of the block at each multiple of UNIT */
};
/* One state more than units in a chunk: see find(). */
enum { HEADER = sizeof(struct chunk) + CHUNK / UNIT + 1 };

static struct chunk *with_free_blocks[CLASSES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Does a chunk begin in this MiB of the address space? All 256 MiB of this
   array are mapped, but only the pages that are touched take memory. */
static unsigned char chunks[sizeof(void *) > 4 ? 1 << 28 : 1 << 12];

static void *allocate(size_t size, size_t align);
static int class_of(size_t size);
static char *allocate_small(int class);
static char *allocate_large(size_t size, size_t align);
static struct chunk *new_chunk(size_t size, size_t align);
static char *take_block(struct chunk *chunk);
static void put_block(struct chunk *chunk, char *block);
static void unmap_empty_chunks(int class);
static void unmap_chunk(struct chunk *chunk);
static int move_pages(void *from, size_t old, void *to, size_t size);
static struct chunk *find(const void *block, const char *call);

#ifndef PRELOAD /* the library has no main(), and nobody who tells of it */
static enum { NOTHING, DOUBLE, FOREIGN } last_free;

static void show(const char *call, const void *block);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    setvbuf(stdout, NULL, _IOLBF, 0); /* it may end by abort() */

    /* Volatile, or the compiler would know better than to call free(). */
    char *volatile small = malloc(100);
    char *volatile large = malloc(1000000);
    if (small == NULL || large == NULL) err(1, "malloc");
    show("malloc(100)", small);
    show("malloc(1000000)", large);

    char *volatile larger = realloc(large, 2000000);
    if (larger == NULL) err(1, "realloc");
    show("realloc() of it to 2000000", larger);
    show("where it was", large);

    free(larger);
    free(small);
    show("free() of it", larger);
    show("free() of the 100", small);

    char *volatile foreign = (char *)&larger;
    if (last_free == DOUBLE) free(small);
    if (last_free == FOREIGN) free(foreign);
    flush_stdout();
}
#endif

void *malloc(size_t size)
{
    return allocate(size, UNIT);
}

/* New memory is 0. A small block may have been somebody else's. */
void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) bytes = PTRDIFF_MAX;
    void *block = allocate(bytes, UNIT);
    if (block && bytes <= SMALL) memset(block, 0, bytes);
    return block;
}

void free(void *block)
{
    if (block == NULL) return;
    pthread_mutex_lock(&lock);
    struct chunk *chunk = find(block, "free");
    const int class = chunk->class;
    if (class == LARGE) {
        unmap_chunk(chunk);
    } else {
        put_block(chunk, block);
        unmap_empty_chunks(class);
    }
    pthread_mutex_unlock(&lock);
}

/* The pages of a large block get another address; no byte is copied. No lock is
   needed to look at a block that only the caller may free. */
void *realloc(void *block, size_t size)
{
    if (block == NULL) return malloc(size);
    if (size == 0) {
        free(block);
        return NULL;
    }

    const size_t old = find(block, "realloc")->size;
    if (size <= old && size >= old / 2) return block;
    void *new = malloc(size);
    if (new == NULL) return NULL;
    if (old <= SMALL || size <= SMALL) {
        memcpy(new, block, old < size ? old : size);
    } else if (!move_pages(block, old, new, size)) {
        free(new);
        errno = ENOMEM;
        return NULL;
    }
    free(block);
    return new;
}

void *aligned_alloc(size_t align, size_t size)
{
    const int power_of_two = align != 0 && (align & (align - 1)) == 0;
    if (power_of_two) return allocate(size, align);
    errno = EINVAL;
    return NULL;
}

int posix_memalign(void **result, size_t align, size_t size)
{
    const int power_of_two = align != 0 && (align & (align - 1)) == 0;
    if (!power_of_two || align < sizeof(void *)) return EINVAL;
    void *block = allocate(size, align);
    if (block == NULL) return ENOMEM;
    *result = block;
    return 0;
}

void *memalign(size_t align, size_t size)
{
    return aligned_alloc(align, size);
}

void *valloc(size_t size)
{
    return allocate(size, sysconf(_SC_PAGESIZE));
}

size_t malloc_usable_size(void *block)
{
    if (block == NULL) return 0;
    return find(block, "malloc_usable_size")->size;
}

static void *allocate(size_t size, size_t align)
{
    if (size > PTRDIFF_MAX / 2 || align > PTRDIFF_MAX / 2) {
        errno = ENOMEM;
        return NULL;
    }
    if (size == 0) size = 1; /* each block is another one */
    size = ROUND_UP(size, align);

    char *block;
    pthread_mutex_lock(&lock);
    if (size <= SMALL)
        block = allocate_small(class_of(size));
    else
        block = allocate_large(size, align);
    pthread_mutex_unlock(&lock);
    return block;
}

/* The first class that is large enough. */
static int class_of(size_t size)
{
    int class = 0, last = CLASSES - 1;
    while (class < last) {
        const int middle = (class + last) / 2;
        if (sizes[middle] < size)
            class = middle + 1;
        else
            last = middle;
    }
    return class;
}

static char *allocate_small(int class)
{
    const size_t size = sizes[class], align = size & -size;
    struct chunk *chunk = with_free_blocks[class];
    if (chunk == NULL) {
        chunk = new_chunk(size, align);
        if (chunk == NULL) return NULL;
        chunk->class = class;
        with_free_blocks[class] = chunk;
    }
    char *block = take_block(chunk);
    if (chunk->free == chunk->end) with_free_blocks[class] = chunk->next;
    return block;
}

static char *allocate_large(size_t size, size_t align)
{
    if (align < PAGE) align = PAGE;
    struct chunk *chunk = new_chunk(ROUND_UP(size, align), align);
    if (chunk == NULL) return NULL;
    chunk->class = LARGE;
    return take_block(chunk);
}

/* mmap() aligns to a page only: map more, and unmap what lies around. A hole
   stays behind a chunk, so that it is a line of its own in /proc/PID/maps. The
   blocks begin at a multiple of their alignment; if that is more than a chunk,
   they begin a chunk behind the header. */
static struct chunk *new_chunk(size_t size, size_t align)
{
    const size_t step = align > CHUNK ? align : CHUNK;
    const size_t first = ROUND_UP(HEADER, align < CHUNK ? align : CHUNK);
    size_t blocks = 1;
    if (size <= SMALL) blocks = (CHUNK - PAGE - first) / size;
    const size_t end = first + blocks * size;
    const size_t length = ROUND_UP(end, PAGE);

    char *map = mmap(NULL, step + length + PAGE, prot, flags, -1, 0);
    if (map == MAP_FAILED) return NULL;
    char *start = map + step - ((uintptr_t)map + CHUNK) % step;
    char *behind = start + length;
    munmap(map, start - map);
    munmap(behind, map + step + length + PAGE - behind);

    struct chunk *chunk = (struct chunk *)start;
    chunk->size = size;
    chunk->length = length;
    chunk->free = start + first;
    chunk->end = start + end;
    chunks[(uintptr_t)start / CHUNK] = LIVE;
    return chunk;
}

static void set_state(struct chunk *chunk, char *block, enum state state)
{
    chunk->state[(block - (char *)chunk) / UNIT] = state;
}

/* A free block holds the distance from its own end to the next free one, which
   may be negative. New memory holds 0: there the next follows at once. */
static char *take_block(struct chunk *chunk)
{
    char *block = chunk->free;
    const intptr_t *distance = (intptr_t *)block;
    chunk->free = block + chunk->size + *distance;
    set_state(chunk, block, LIVE);
    chunk->used++;
    return block;
}

static void put_block(struct chunk *chunk, char *block)
{
    if (chunk->free == chunk->end) { /* until now there was none */
        chunk->next = with_free_blocks[chunk->class];
        with_free_blocks[chunk->class] = chunk;
    }
    intptr_t *distance = (intptr_t *)block;
    *distance = chunk->free - (block + chunk->size);
    chunk->free = block;
    set_state(chunk, block, FREED);
    chunk->used--;
}

/* Only the first chunk of the list can go, and not if it is the only one: that
   stays for the next malloc(). */
static void unmap_empty_chunks(int class)
{
    struct chunk *chunk = with_free_blocks[class];
    while (chunk->used == 0 && chunk->next != NULL) {
        with_free_blocks[class] = chunk->next;
        unmap_chunk(chunk);
        chunk = with_free_blocks[class];
    }
}

static void unmap_chunk(struct chunk *chunk)
{
    const int before = errno; /* free() keeps it */
    chunks[(uintptr_t)chunk / CHUNK] = FREED;
    munmap(chunk, chunk->length);
    errno = before;
}

/* Of the old chunk only the header stays. Where the pages go, mremap() unmaps
   what is there, even if it fails then; the old block is whole in that case. */
static int move_pages(void *from, size_t old, void *to, size_t size)
{
    const int how = MREMAP_MAYMOVE | MREMAP_FIXED;
    if (mremap(from, old, ROUND_UP(size, PAGE), how, to) == MAP_FAILED)
        return 0;
    struct chunk *chunk = find(from, "realloc");
    chunk->length = (char *)from - (char *)chunk;
    return 1;
}

/* No printf(): it would call malloc(). */
__attribute__((noreturn)) static void die(const char *format, const char *call,
                                          const void *block)
{
    char line[100];
    const int length = snprintf(line, sizeof line, format, call, block);
    const ssize_t written = write(STDERR_FILENO, line, length);
    (void)written;
    abort();
}

/* Any pointer may come here: follow it only where a header is known to be. A
   block of a large alignment begins where the MiB of its header ends. */
static struct chunk *find(const void *block, const char *call)
{
    const size_t mebibyte = ((uintptr_t)block - 1) / CHUNK;
    const size_t offset = (uintptr_t)block - mebibyte * CHUNK;
    struct chunk *chunk = (struct chunk *)(mebibyte * CHUNK);
    enum state state = NEVER;
    if (mebibyte < sizeof chunks && offset % UNIT == 0)
        state = chunks[mebibyte];
    if (state == LIVE) state = chunk->state[offset / UNIT];
    if (state == LIVE) return chunk;
    if (state == FREED && strcmp(call, "free") == 0)
        die("alloc: double %s of %p\n", call, block);
    if (state == FREED) die("alloc: %s of %p, which was freed\n", call, block);
    die("alloc: %s of %p, which is not a block of ours\n", call, block);
}

static void take_lock(void)
{
    pthread_mutex_lock(&lock);
}

static void leave_lock(void)
{
    pthread_mutex_unlock(&lock);
}

/* Or a child could find the lock taken, by a thread that it does not have. */
__attribute__((constructor)) static void prepare_for_fork(void)
{
    errno = pthread_atfork(take_lock, leave_lock, leave_lock);
    if (errno != 0) err(1, "pthread_atfork");
}

#ifndef PRELOAD

/* The mapping in which the block lies, or lay. */
static void show(const char *call, const void *block)
{
    const unsigned long at = (unsigned long)block;
    printf("%s: %p\n", call, block);
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) err(1, "/proc/self/maps");
    char line[4200], rights[5];
    unsigned long start, end;
    int found = 0;
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) != 3) continue;
        if (at < start || at >= end) continue;
        printf("  in %lx-%lx %s, %lu kB\n", start, end, rights,
               (end - start) / 1024);
        found = 1;
    }
    if (ferror(maps)) err(1, "/proc/self/maps");
    fclose(maps);
    if (!found) puts("  nothing is mapped there");
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: alloc [--double-free | --foreign-free]\n"
         "Allocate with a malloc() of our own, and show the mappings.\n"
         "  --double-free   at the end, free a block again\n"
         "  --foreign-free  free what is no block\n"
         "example: alloc --double-free");
    flush_stdout();
    exit(0);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"double-free", 0, NULL, 'd'},
                                     {"foreign-free", 0, NULL, 'f'},
                                     {"help", 0, NULL, 'h'},
                                     {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'd': last_free = DOUBLE; break;
        case 'f': last_free = FOREIGN; break;
        case 'h': usage(); break;
        case '?': exit(2);
        }
    if (optind < argc) errx(2, "%s: unexpected; try --help", argv[optind]);
}

/* With stdout closed, open() would return 1, and printf() fill the file.
   A closed stdin is an empty one. */
static void check_streams(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) == -1) err(1, "stdout");
    if (fcntl(STDERR_FILENO, F_GETFD) == -1) err(1, "stderr");
    if (fcntl(STDIN_FILENO, F_GETFD) != -1) return;
    if (open("/dev/null", O_RDONLY) == -1) err(1, "/dev/null");
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
#endif
