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
 *     ./extra/alloc
 *     LD_PRELOAD=extra/alloc.so ls -l
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* PAGE is the largest page there is, and so a multiple of every other. */
enum { UNIT = 16, PAGE = 1 << 16, SMALL = 1 << 16, CHUNK = 1 << 20 };
enum { NEVER, LIVE, FREED };
#define ROUND_UP(size, unit) (((size) + (unit)-1) & -(size_t)(unit))

struct chunk {
    struct chunk *next, **list; /* of those with free blocks of this size */
    char *free, *end;           /* the first free block; where they end */
    size_t size, length, used;  /* of a block; of the mapping; how many */
    unsigned char state[];      /* of the block at each multiple of 16 */
};
static struct chunk *lists[45];
enum { HEADER = sizeof(struct chunk) + CHUNK / UNIT + 1 };
/* Does a chunk begin in this MiB of the address space? All 256 MiB of this
   array are mapped, but only the pages that are touched take memory. */
static unsigned char chunks[sizeof(void *) > 4 ? 1 << 28 : 1 << 12];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void leave(void)
{
    pthread_mutex_unlock(&lock);
}

/* fork() takes the lock, or a child could find it locked by a lost thread. */
static void enter(void)
{
    static volatile int registered;
    if (!registered++) pthread_atfork(enter, leave, leave);
    pthread_mutex_lock(&lock);
}

/* mmap() aligns to a page only: map more, and unmap what lies around. A hole
   stays behind a chunk, so that it is a line of its own in /proc/PID/maps. */
static struct chunk *new_chunk(struct chunk **list, size_t size, size_t align)
{
    const int prot = PROT_READ | PROT_WRITE;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    const size_t step = align > CHUNK ? align : CHUNK;
    const size_t first = ROUND_UP(HEADER, align < CHUNK ? align : CHUNK);
    const size_t blocks = size > SMALL ? 1 : (CHUNK - PAGE - first) / size;
    const size_t end = first + blocks * size, length = ROUND_UP(end, PAGE);
    char *map = mmap(NULL, step + length + PAGE, prot, flags, -1, 0);
    if (map == MAP_FAILED) return NULL;
    char *start = map + step - ((uintptr_t)map + CHUNK) % step;
    munmap(map, start - map);
    munmap(start + length, map + step + PAGE - start);
    chunks[(uintptr_t)start / CHUNK] = LIVE;
    *list = (struct chunk *)start;
    **list =
        (struct chunk){NULL, list, start + first, start + end, size, length, 0};
    return *list;
}

/* Rounded up to its alignment, a size belongs to a class of this alignment. */
void *aligned_alloc(size_t align, size_t size)
{
    struct chunk **list = lists;
    if (align & (align - 1) || ((align - 1) | size) > PTRDIFF_MAX / 2)
        return errno = ENOMEM, NULL;
    if (size > SMALL && align < PAGE) align = PAGE;
    size = ROUND_UP(size ? size : 1, align);
    if (size <= SMALL) {
        const int shift = size <= 128 ? 4 : 29 - __builtin_clz(size - 1);
        size = ROUND_UP(size, (size_t)1 << shift);
        list += 4 * (shift - 4) + (size >> shift), align = size & -size;
    }
    enter();
    struct chunk *chunk = *list ? *list : new_chunk(list, size, align);
    char *block = chunk ? chunk->free : NULL;
    if (block) {
        chunk->state[(block - (char *)chunk) / UNIT] = LIVE, chunk->used++;
        /* It holds how far behind its end the next is: 0 in new memory. */
        chunk->free = block + size + *(intptr_t *)block;
        if (chunk->free == chunk->end) *list = chunk->next;
    }
    leave();
    return block;
}

void *malloc(size_t size)
{
    return aligned_alloc(UNIT, size);
}

int posix_memalign(void **result, size_t align, size_t size)
{
    if (align < sizeof(void *) || align & (align - 1)) return EINVAL;
    void *block = aligned_alloc(align, size);
    return block ? *result = block, 0 : ENOMEM;
}

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) bytes = PTRDIFF_MAX;
    void *block = aligned_alloc(UNIT, bytes);
    return block && bytes <= SMALL ? memset(block, 0, bytes) : block;
}

/* Any pointer may come here: follow it only where a header is known to be. */
static struct chunk *find(const void *block)
{
    const size_t n = ((uintptr_t)block - 1) / CHUNK;
    const size_t offset = (uintptr_t)block - n * CHUNK;
    struct chunk *chunk = (struct chunk *)(n * CHUNK);
    int state = n < sizeof chunks && offset % UNIT == 0 ? chunks[n] : NEVER;
    if (state == LIVE) state = chunk->state[offset / UNIT];
    if (state == LIVE) return chunk;
    const char *format = "alloc: free of %p, which is not a block of ours\n";
    if (state == FREED) format = "alloc: double free of %p\n";
    char line[80];
    (void)!write(2, line, snprintf(line, sizeof line, format, block));
    abort();
}

size_t malloc_usable_size(void *block)
{
    return block ? find(block)->size : 0;
}

void free(void *block)
{
    if (block == NULL) return;
    enter();
    struct chunk *chunk = find(block), **list = chunk->list;
    chunk->state[((char *)block - (char *)chunk) / UNIT] = FREED, chunk->used--;
    if (chunk->free == chunk->end) chunk->next = *list, *list = chunk;
    if (list != lists) {
        *(size_t *)block = chunk->free - (char *)block - chunk->size;
        chunk->free = block;
    }
    while ((chunk = *list) && !chunk->used && (chunk->next || list == lists)) {
        *list = chunk->next, chunks[(uintptr_t)chunk / CHUNK] = FREED;
        munmap(chunk, chunk->length);
    }
    leave();
}

/* The pages of a large block get another address; no byte is copied. */
void *realloc(void *block, size_t size)
{
    const size_t old = malloc_usable_size(block);
    if (block && size == 0) return free(block), NULL;
    if (block && size <= old && size >= old / 2) return block;
    void *new = malloc(size);
    if (block == NULL || new == NULL) return new;
    if (old <= SMALL || size <= SMALL ||
        mremap(block, old, ROUND_UP(size, PAGE), MREMAP_MAYMOVE | MREMAP_FIXED,
               new) != new)
        memcpy(new, block, old < size ? old : size);
    else
        find(block)->length = ((uintptr_t)block - 1) % CHUNK + 1;
    free(block);
    return new;
}

#ifndef PRELOAD /* the library ends here */
static void show(const char *call, void *block)
{
    char command[80];
    snprintf(command, sizeof command, "grep ^%lx /proc/%d/maps || echo gone",
             (unsigned long)block / CHUNK, getpid());
    if (printf("%s: %p\n", call, block) < 0) err(1, "stdout");
    if (system(command) != 0) /* NOLINT(cert-env33-c): only numbers in it */
        errx(1, "%s: failed", command);
}

int main(int argc, char *argv[])
{
    int mode = 0;
    const struct option options[] = {{"double-free", 0, &mode, 'd'},
                                     {"foreign-free", 0, &mode, 'f'},
                                     {"help", 0, &mode, 'h'},
                                     {NULL, 0, NULL, 0}};
    if (getopt_long_only(argc, argv, "", options, NULL) > 0) return 2;
    if (optind < argc) errx(2, "%s: unexpected; try --help", argv[optind]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (mode == 'h') {
        puts("usage: alloc [--double-free | --foreign-free]\n"
             "example: alloc --double-free");
    } else {
        char *volatile small = malloc(100), *volatile large = malloc(1000000);
        show("malloc(100)", small);
        show("malloc(1000000)", large);
        char *volatile larger = realloc(large, 2000000);
        show("realloc() of it to 2000000", larger);
        show("where it was", large);
        free(larger), free(small);
        show("free() of it", larger);
        show("free() of the 100", small);
        if (mode) free(mode == 'd' ? small : (char *)&mode);
    }
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
#endif
