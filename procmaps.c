/* SPDX-License-Identifier: MIT */
/*
 * procmaps: where everything lies in the address space.
 *
 *     7ffc... | stack                      |
 *             :    nothing                 :
 *     7f3a... | libraries, files, mmap()   |
 *             :    nothing, terabytes      :
 *     55d0... | code, data, bss, then heap |
 *           0 :    nothing, terabytes      :  NULL points here
 *
 *     ./procmaps procmaps.c
 *     cat /proc/$(pidof procmaps)/maps         in another terminal
 *
 * mmap(2), mincore(2), proc_pid_maps(5), proc_pid_smaps(5)
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* To experiment, change these lines. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_PRIVATE | MAP_ANONYMOUS;
enum { PAGES = 10 };

static const char *path; /* the file to map */
static int initialised = 1, uninitialised;

struct region {
    const char *what; /* NULL behind the last one */
    size_t address;
};

/* The lines of /proc/self/maps, from the lowest address up. */
struct mapping {
    size_t start, end;
    char rights[5], name[40];
};
static struct mapping *maps;
static int mappings; /* how many */

/* In the drawing, mappings that are nearer than these bytes are one line. */
enum { NEAR = 4 << 20, COLUMNS = 80 };

static void touch(volatile char *pages, size_t page);
static int open_file(size_t *length);
static void read_maps(void);
static void parse_mapping(const char *line, struct mapping *mapping);
static void print_regions(const struct region *regions);
static const struct mapping *mapping_of(size_t address);
static void draw(struct region *regions);
static int higher_first(const void *a, const void *b);
static void draw_area(const struct mapping *lowest,
                      const struct mapping *highest,
                      const struct region *regions);
static int print_line(size_t start, size_t end, char edge, const char *holds);
static void print_pages(const char *when, volatile char *pages);
static long rss(size_t address);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void wait_for_enter(const char *what);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    const size_t page = sysconf(_SC_PAGESIZE);
    volatile char *pages = mmap(NULL, PAGES * page, prot, flags, -1, 0);
    if (pages == MAP_FAILED) err(1, "mmap of %d pages", PAGES);
    /* The kernel joins neighbours that are alike: make this one different. */
    if (madvise((void *)pages, PAGES * page, MADV_DONTFORK) == -1)
        err(1, "madvise");

    size_t length;
    const int fd = open_file(&length);
    void *file = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED) err(1, "%s: mmap of %zu bytes", path, length);

    void *small = malloc(100);
    if (small == NULL) err(1, "malloc of 100 bytes");
    void *large = malloc(1000000);
    if (large == NULL) err(1, "malloc of 1000000 bytes");

    struct region regions[] = {
        {"code", (size_t)main},          {"data", (size_t)&initialised},
        {"bss", (size_t)&uninitialised}, {"small malloc", (size_t)small},
        {"large malloc", (size_t)large}, {"anonymous", (size_t)pages},
        {"file", (size_t)file},          {"printf", (size_t)printf},
        {"stack", (size_t)&length},      {NULL, 0},
    };
    read_maps();
    print_regions(regions);
    draw(regions);

    touch(pages, page);
    wait_for_enter("ends this");
    free(large);
    free(small);
}

/* Demand paging: mmap() only promised memory. Volatile, so that a byte is read
   though nobody wants it. */
static void touch(volatile char *pages, size_t page)
{
    print_pages("of ten untouched pages:", pages);
    (void)pages[7 * page];
    print_pages("after reading one:", pages);
    pages[0] = 'x';
    pages[4 * page] = 'x';
    pages[9 * page] = 'x';
    print_pages("after writing to three:", pages);
}

static int open_file(size_t *length)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_NONBLOCK); /* and do not wait at a FIFO */
    if (fd == -1) err(1, "%s", path);
    if (fstat(fd, &status) == -1) err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", path);
    *length = status.st_size;
    if ((off_t)*length != status.st_size)
        errx(1, "%s: larger than the address space", path);
    return fd;
}

static void read_maps(void)
{
    FILE *stream = fopen("/proc/self/maps", "r");
    if (stream == NULL) err(1, "/proc/self/maps");
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stream) != -1) {
        if (mappings % 1000 == 0) {
            maps = realloc(maps, (mappings + 1000) * sizeof *maps);
            if (maps == NULL) err(1, "%d mappings", mappings);
        }
        parse_mapping(line, &maps[mappings]);
        mappings++;
    }
    if (!feof(stream)) err(1, "/proc/self/maps");
    free(line);
    fclose(stream);
}

/* The name is what follows the last slash, as "x" or "x (deleted)"; or one of
   the kernel's own, as "[heap]". */
static void parse_mapping(const char *line, struct mapping *mapping)
{
    int at = 0;
    sscanf(line, "%zx-%zx %4s %*s %*s %*s %n", &mapping->start, &mapping->end,
           mapping->rights, &at);
    const char *name = line + at;
    if (*name == '/') name = strrchr(name, '/') + 1;
    if (*name == '\0') name = "anonymous";
    snprintf(mapping->name, sizeof mapping->name, "%s", name);
    mapping->name[strcspn(mapping->name, "\n")] = '\0';
}

static void print_regions(const struct region *regions)
{
    for (const struct region *r = regions; r->what; r++) {
        const struct mapping *m = mapping_of(r->address);
        printf("%-13s %12zx  in ", r->what, r->address);
        if (m == NULL)
            printf("no mapping\n");
        else
            printf("%zx-%zx %s %.18s\n", m->start, m->end, m->rights, m->name);
    }
}

static const struct mapping *mapping_of(size_t address)
{
    for (int i = 0; i < mappings; i++)
        if (maps[i].start <= address && address < maps[i].end) return &maps[i];
    return NULL;
}

/* From the top of the address space down, on one screen: mappings that lie
   near each other are one line, and so is each gap. */
static void draw(struct region *regions)
{
    int number = 0;
    while (regions[number].what) number++;
    qsort(regions, number, sizeof *regions, higher_first);

    int top = mappings - 1;
    while (top >= 0) {
        int i = top;
        while (i > 0 && maps[i].start - maps[i - 1].end < NEAR) i--;
        draw_area(&maps[i], &maps[top], regions);
        const size_t below = i > 0 ? maps[i - 1].end : 0;
        if (below < maps[i].start) {
            print_line(below, maps[i].start, ':', "nothing");
            puts(below == 0 ? " NULL" : "");
        }
        top = i - 1;
    }
}

static int higher_first(const void *a, const void *b)
{
    const size_t one = ((const struct region *)a)->address;
    const size_t other = ((const struct region *)b)->address;
    if (one == other) return 0;
    return one < other ? 1 : -1;
}

/* The mappings from the one to the other, and the regions that they hold. */
static void draw_area(const struct mapping *lowest,
                      const struct mapping *highest,
                      const struct region *regions)
{
    char holds[40];
    const int number = highest - lowest + 1;
    snprintf(holds, sizeof holds, "%d mapping%s", number,
             number > 1 ? "s" : "");
    const int left = print_line(lowest->start, highest->end, '|', holds);
    int column = left;
    for (const struct region *r = regions; r->what; r++) {
        if (r->address < lowest->start || r->address >= highest->end) continue;
        if (column > left) column += printf(",");
        if (column + 1 + strlen(r->what) >= COLUMNS) {
            printf("\n%*s", left, "");
            column = left;
        }
        column += printf(" %s", r->what);
    }
    if (column == left) printf(" %s", highest->name);
    puts("");
}

static int print_line(size_t start, size_t end, char edge, const char *holds)
{
    const char *unit = "KMGTPE";
    size_t size = (end - start) / 1024;
    while (size >= 10 * 1024) {
        size /= 1024;
        unit++;
    }
    return printf("%16zx %c %4zu %ciB %-12s%c", start, edge, size, *unit, holds,
                  edge);
}

/* mincore() tells of each page whether there is memory behind it. That can be
   the kernel's one page of zeros, which Rss does not count. */
static void print_pages(const char *when, volatile char *pages)
{
    unsigned char resident[PAGES];
    const size_t length = PAGES * sysconf(_SC_PAGESIZE);
    if (mincore((void *)pages, length, resident) == -1) err(1, "mincore");
    printf("in memory %-23s  ", when);
    for (int i = 0; i < PAGES; i++) putchar(resident[i] & 1 ? '#' : '.');
    printf("  Rss %2ld kB\n", rss((size_t)pages));
}

/* Of the mapping at this address, as /proc/self/smaps has it. */
static long rss(size_t address)
{
    FILE *stream = fopen("/proc/self/smaps", "r");
    if (stream == NULL) err(1, "/proc/self/smaps");
    char *line = NULL;
    size_t size = 0, start, end;
    long kilobytes = -1;
    int inside = 0;
    while (getline(&line, &size, stream) != -1) {
        if (sscanf(line, "%zx-%zx ", &start, &end) == 2)
            inside = start <= address && address < end;
        if (inside) sscanf(line, "Rss: %ld kB", &kilobytes);
    }
    if (!feof(stream)) err(1, "/proc/self/smaps");
    if (kilobytes == -1) errx(1, "/proc/self/smaps: no Rss of %zx", address);
    free(line);
    fclose(stream);
    return kilobytes;
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: procmaps FILE\n"
         "Map FILE, show what lies where in memory, and wait for Enter.\n"
         "example: procmaps procmaps.c");
    flush_stdout();
    exit(0);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case '?': exit(2);
        }
    if (argc != optind + 1) errx(2, "want one FILE; try --help");
    path = argv[optind];
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

/* The end of the input is Enter, too. */
static void wait_for_enter(const char *what)
{
    printf("[%d] Enter %s\n", getpid(), what);
    flush_stdout();
    int key = getchar();
    while (key != '\n' && key != EOF) key = getchar();
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
