/* SPDX-License-Identifier: MIT */
/*
 * refuse: why mmap() fails, and what works though many think that it fails.
 *
 *     mmap(address, length, prot, flags, descriptor, offset)
 *             |        |      |     |         |        |
 *             |        |      |     |         |        +-- pages: EINVAL
 *             |        |      |     |         +-- is open: EBADF
 *             |        |      |     |             has pages: ENODEV
 *             |        |      |     +-- shared or private: EINVAL
 *             |        |      +-- no more than the descriptor may: EACCES
 *             |        +-- not 0: EINVAL, is to be had: ENOMEM
 *             +-- with MAP_FIXED a page: EINVAL
 *
 *     ./extra/refuse
 *     ./extra/refuse works
 *     ./extra/refuse readonly
 *
 * mmap(2) lists the errors; errno(3) says what their names mean.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

struct row {
    const char *name;
    char *(*map)(void);
    int (*use)(char *at);
    const char *access, *code; /* the two functions as text */
    const char *call, *expected, *why;
};

/* The code of a row: a child process runs it, and `refuse NAME` prints it.
   What it has mapped is tried by the access. */
#define CODE(name, access, ...)     \
    static char *map_##name(void)   \
    {                               \
        char *at;                   \
        __VA_ARGS__                 \
        return at;                  \
    }                               \
    static int use_##name(char *at) \
    {                               \
        return (access);            \
    }                               \
    static const char access_##name[] = #access, code_##name[] = #__VA_ARGS__;
#define ROW(name) #name, map_##name, use_##name, access_##name, code_##name

/* To experiment, change these lines, or add to them and to the tables below. */

CODE(inside, at[0], {
    at = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) err(1, "mmap");
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    at = mmap(at + 7, 4096, PROT_READ, flags, -1, 0);
})

CODE(taken, at[0], {
    at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) err(1, "mmap");
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    at = mmap(at, 4096, PROT_READ, flags, -1, 0);
})

/* Root may map address 0, so it becomes nobody, user 65534. Who is not allowed
   to (EPERM, EINVAL) has no such right to lose. */
CODE(null, at[0], {
    if (setuid(65534) == -1 && errno == EAGAIN) err(1, "setuid");
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    at = mmap(NULL, 4096, PROT_READ, flags, -1, 0);
})

CODE(length, at[0],
     { at = mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); })

CODE(space, at[0], {
    at = mmap(NULL, SIZE_MAX, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
})

CODE(memory, at[0], {
    struct sysinfo has;
    if (sysinfo(&has) == -1) err(1, "sysinfo");
    uint64_t all = (has.totalram + (uint64_t)has.totalswap) * has.mem_unit;
    size_t size = all < SIZE_MAX / 2 ? 2 * all : SIZE_MAX;
    at = mmap(NULL, size, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
})

CODE(limit, at[0], {
    const struct rlimit limit = {1 << 20, 1 << 20};
    if (setrlimit(RLIMIT_AS, &limit) == -1) err(1, "setrlimit");
    at = mmap(NULL, 2 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
})

CODE(neither, at[0], {
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd == -1) err(1, "/proc/self/exe");
    at = mmap(NULL, 4096, PROT_READ, 0, fd, 0);
})

CODE(alone, at[0], { at = mmap(NULL, 4096, PROT_READ, MAP_ANONYMOUS, -1, 0); })

/* With a limit of 0 it would be EPERM, and who has that cannot raise it to 1.
   Root may lock more than the limit, so it becomes nobody. */
CODE(locked, at[0], {
    const struct rlimit limit = {1, 1};
    int set = setrlimit(RLIMIT_MEMLOCK, &limit);
    if (set == -1 && errno != EPERM) err(1, "setrlimit");
    if (setuid(65534) == -1 && errno == EAGAIN) err(1, "setuid");
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED;
    at = mmap(NULL, 1 << 20, PROT_READ, flags, -1, 0);
})

CODE(sync, at[0], {
    int fd = memfd_create("file", 0);
    if (fd == -1) err(1, "memfd_create");
    const int flags = MAP_SHARED_VALIDATE | MAP_SYNC;
    at = mmap(NULL, 4096, PROT_READ, flags, fd, 0);
})

CODE(nofile, at[0], { at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0); })

CODE(pipe, at[0], {
    int ends[2];
    if (pipe(ends) == -1) err(1, "pipe");
    at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, ends[0], 0);
})

CODE(directory, at[0], {
    int fd = open("/", O_RDONLY);
    if (fd == -1) err(1, "/");
    at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
})

CODE(proc, at[0], {
    int fd = open("/proc/self/maps", O_RDONLY);
    if (fd == -1) err(1, "/proc/self/maps");
    at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
})

CODE(readonly, at[0], {
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd == -1) err(1, "/proc/self/exe");
    at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
})

CODE(writeonly, at[0], {
    int fd = open("/dev/zero", O_WRONLY);
    if (fd == -1) err(1, "/dev/zero");
    at = mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0);
})

CODE(sealed, at[0], {
    int fd = memfd_create("file", MFD_ALLOW_SEALING);
    if (fd == -1) err(1, "memfd_create");
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == -1) err(1, "F_ADD_SEALS");
    at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
})

CODE(offset, at[0], {
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd == -1) err(1, "/proc/self/exe");
    at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 7);
})

CODE(negative, at[0], {
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd == -1) err(1, "/proc/self/exe");
    at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, -65536);
})

CODE(hint, at[0], {
    at = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) err(1, "mmap");
    at = mmap(at + 7, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
})

CODE(replace, at[0], {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (at == MAP_FAILED) err(1, "mmap");
    at[0] = 42;
    char *over = mmap(at, 4096, PROT_READ, flags | MAP_FIXED, -1, 0);
    if (over == MAP_FAILED) at = over;
})

CODE(rounded, at[4095], {
    int fd = memfd_create("file", 0);
    if (fd == -1) err(1, "memfd_create");
    if (ftruncate(fd, 5) == -1) err(1, "ftruncate");
    at = mmap(NULL, 5, PROT_READ, MAP_SHARED, fd, 0);
})

CODE(longer, at[65536], {
    int fd = memfd_create("file", 0);
    if (fd == -1) err(1, "memfd_create");
    if (ftruncate(fd, 5) == -1) err(1, "ftruncate");
    at = mmap(NULL, 100000, PROT_READ, MAP_SHARED, fd, 0);
})

CODE(terabyte, at[0] = 42, {
    const int bits = sizeof at == 8 ? 40 : 30;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    at = mmap(NULL, (size_t)1 << bits, PROT_WRITE, flags, -1, 0);
})

CODE(none, at[0] = 42, {
    const int prot = PROT_NONE | PROT_WRITE;
    at = mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
})

CODE(ignored, at[0], {
    int fd = memfd_create("file", 0);
    if (fd == -1) err(1, "memfd_create");
    if (ftruncate(fd, 5) == -1) err(1, "ftruncate");
    at = mmap(NULL, 5, PROT_READ, MAP_SHARED | MAP_SYNC, fd, 0);
})

CODE(copy, at[0] = 42, {
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd == -1) err(1, "/proc/self/exe");
    at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
})

/* A program begins with the bytes 0x7f 'E' 'L' 'F': 127, 69, ... */
CODE(closed, at[1], {
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd == -1) err(1, "/proc/self/exe");
    at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
})

CODE(beyond, at[0], {
    int fd = memfd_create("file", 0);
    if (fd == -1) err(1, "memfd_create");
    if (ftruncate(fd, 5) == -1) err(1, "ftruncate");
    at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 65536);
})

/* In the order of the arguments: address, length, flags, descriptor, offset. */
static const struct row refused[] = {
    {ROW(inside), "MAP_FIXED at page + 7", "EINVAL", "no page begins there"},
    {ROW(taken), "MAP_FIXED_NOREPLACE, in use", "EEXIST",
     "something is mapped there"},
    {ROW(null), "MAP_FIXED at address 0", "EPERM", "a NULL pointer must crash"},
    {ROW(length), "length 0", "EINVAL", "nothing would be mapped"},
    {ROW(space), "length SIZE_MAX", "ENOMEM", "more than all addresses"},
    {ROW(memory), "twice RAM and swap", "ENOMEM", "overcommit_memory is not 1"},
    {ROW(limit), "2 MiB, RLIMIT_AS is 1 MiB", "ENOMEM", "more than ulimit -v"},
    {ROW(neither), "flags 0", "EINVAL", "neither shared nor private"},
    {ROW(alone), "MAP_ANONYMOUS alone", "EINVAL", "neither shared nor private"},
    {ROW(locked), "MAP_LOCKED, 1 MiB", "EAGAIN", "more than ulimit -l"},
    {ROW(sync), "MAP_SYNC, of a memfd", "EOPNOTSUPP", "not persistent memory"},
    {ROW(nofile), "descriptor -1", "EBADF", "MAP_ANONYMOUS is missing"},
    {ROW(pipe), "a pipe", "ENODEV", "a stream has no pages"},
    {ROW(directory), "a directory", "ENODEV", "only readdir(3) reads it"},
    {ROW(proc), "/proc/self/maps", "ENODEV", "its text is made by read()"},
    {ROW(readonly), "O_RDONLY, SHARED, WRITE", "EACCES",
     "a store writes the file"},
    {ROW(writeonly), "O_WRONLY, SHARED, WRITE", "EACCES",
     "a page is read first"},
    {ROW(sealed), "F_SEAL_WRITE, SHARED, WRITE", "EPERM",
     "the seal forbids writing"},
    {ROW(offset), "offset 7", "EINVAL", "no page begins there"},
    {ROW(negative), "offset -65536", sizeof(long) == 8 ? "EOVERFLOW" : "EINVAL",
     "it is taken as unsigned"},
};

static const struct row working[] = {
    {ROW(hint), "page + 7, without MAP_FIXED", "works; 0",
     "a hint: it goes elsewhere"},
    {ROW(replace), "MAP_FIXED over a 42", "works; 0", "the 42 is unmapped"},
    {ROW(rounded), "length 5, then byte 4095", "works; 0",
     "pages are mapped whole"},
    {ROW(longer), "file of 5, length 100000", "works; SIGBUS",
     "no page of the file"},
    {ROW(terabyte),
     sizeof(long) == 8 ? "1 TiB, MAP_NORESERVE" : "1 GiB, MAP_NORESERVE",
     "works; 42", "a page comes when touched"},
    {ROW(none), "PROT_NONE | PROT_WRITE", "works; 42", "PROT_NONE is 0"},
    {ROW(ignored), "MAP_SHARED | MAP_SYNC", "works; 0",
     "MAP_SHARED ignores it"},
    {ROW(copy), "O_RDONLY, PRIVATE, WRITE", "works; 42",
     "stores stay in a copy"},
    {ROW(closed), "close() after mmap()", "works; 69",
     "a mapping holds its file"},
    {ROW(beyond), "file of 5, offset 65536", "works; SIGBUS",
     "no page of the file"},
};

enum {
    REFUSED = sizeof refused / sizeof *refused,
    WORKING = sizeof working / sizeof *working
};

/* How a row ended: its errno; or 0, and how the access ended. */
struct ending {
    int error, signal, value;
};
static struct ending *ending; /* shared with the children, who fill it in */
static int works;             /* the second table */
static const struct row *chosen;

static void print_table(const char *title, const struct row *rows, int count);
static void print_program(const struct row *row);
static int run_row(const struct row *row, char *came, size_t size);
static void be_child(const struct row *row);
static void wait_for_child(pid_t child, const char *name);
static const char *expectation(const struct row *row);
static const char *error_name(int error);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    signal(SIGCHLD, SIG_DFL); /* ignored, it would take away their status */

    const int prot = PROT_READ | PROT_WRITE;
    const int flags = MAP_SHARED | MAP_ANONYMOUS;
    ending = mmap(NULL, sizeof *ending, prot, flags, -1, 0);
    if (ending == MAP_FAILED) err(1, "mmap");

    if (chosen)
        print_program(chosen);
    else if (works)
        print_table("what works all the same", working, WORKING);
    else
        print_table("what mmap() refuses", refused, REFUSED);
    flush_stdout();
}

static void print_table(const char *title, const struct row *rows, int count)
{
    int marked = 0;
    printf("%-10s%-28s%-15s%s\n", "NAME", title, "what came", "because");
    for (int i = 0; i < count; i++) {
        char came[32];
        const int other = run_row(&rows[i], came, sizeof came);
        printf("%-10s%-28s%-13s%c %s\n", rows[i].name, rows[i].call, came,
               other ? '*' : ' ', rows[i].why);
        if (other) marked = 1;
    }
    if (marked) puts("* is not as expected: refuse NAME says what was");
    if (rows == refused)
        puts("refuse works: what is not refused; refuse NAME: its C code");
}

/* The whole of it, ready to be compiled. */
static void print_program(const struct row *row)
{
    char came[32];
    const int other = run_row(row, came, sizeof came);
    printf("/* %s: %s: %s, %s", row->name, row->call, came, row->why);
    if (other) printf("\n   * not %s, which was expected", expectation(row));
    puts(" */\n"
         "#define _GNU_SOURCE\n"
         "#define _FILE_OFFSET_BITS 64\n"
         "#include <err.h>\n"
         "#include <errno.h>\n"
         "#include <fcntl.h>\n"
         "#include <stdint.h>\n"
         "#include <stdio.h>\n"
         "#include <sys/mman.h>\n"
         "#include <sys/resource.h>\n"
         "#include <sys/sysinfo.h>\n"
         "#include <unistd.h>\n"
         "int main(void)\n"
         "{\n"
         "    char *at;");

    /* The code is "{ one; two; }": each statement gets a line of its own. */
    const char *end = row->code + strlen(row->code) - strlen(" }");
    const char *c = row->code + strlen("{ ");
    while (c < end) {
        const char *statement = c;
        c = strchr(c, ';') + 1;
        printf("    %.*s\n", (int)(c - statement), statement);
        c += strspn(c, " ");
    }
    printf("    if (at == MAP_FAILED) err(1, \"mmap\");\n"
           "    printf(\"works; %%d\\n\", %s);\n"
           "}\n",
           row->access);
}

/* Runs a row in a child, and tells in words how it ended, and whether that is
   not as expected. */
static int run_row(const struct row *row, char *came, size_t size)
{
    memset(ending, 0, sizeof *ending);
    flush_stdout(); /* or the child would have a copy of what is not written */
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) be_child(row);
    wait_for_child(child, row->name);

    if (ending->error != 0)
        snprintf(came, size, "%s", error_name(ending->error));
    else if (ending->signal != 0)
        snprintf(came, size, "works; %s",
                 ending->signal == SIGBUS ? "SIGBUS" : "SIGSEGV");
    else
        snprintf(came, size, "works; %d", ending->value);
    return strcmp(came, expectation(row)) != 0;
}

static void be_child(const struct row *row)
{
    char *at = row->map();
    if (at == MAP_FAILED) {
        ending->error = errno;
        _exit(0);
    }
    signal(SIGBUS, SIG_DFL); /* a sanitizer would handle them */
    signal(SIGSEGV, SIG_DFL);
    prctl(PR_SET_DUMPABLE, 0); /* and no core is left */
    ending->value = row->use(at);
    _exit(0);
}

/* It may die of the access. What else failed it has said itself. */
static void wait_for_child(pid_t child, const char *name)
{
    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "child %d", child);
    if (WIFSIGNALED(status)) ending->signal = WTERMSIG(status);
    if (ending->signal == SIGBUS || ending->signal == SIGSEGV) return;
    if (WIFSIGNALED(status)) errx(1, "%s: %s", name, strsignal(ending->signal));
    if (WEXITSTATUS(status) != 0) exit(1);
}

/* How much memory is promised is a setting: proc_sys_vm(5). */
static int overcommit(void)
{
    int setting = 0;
    FILE *file = fopen("/proc/sys/vm/overcommit_memory", "r");
    if (file == NULL) return 0;
    if (fscanf(file, "%d", &setting) != 1) setting = 0;
    fclose(file);
    return setting;
}

static const char *expectation(const struct row *row)
{
    if (row->map == map_memory && overcommit() == 1) return "works; 0";
    if (row->map == map_terabyte && overcommit() == 2) return "ENOMEM";
    return row->expected;
}

/* strerror(3) has no names, and strerrorname_np() is not in every library. */
static const char *error_name(int error)
{
    static char other[32];
    switch (error) {
    case EACCES: return "EACCES";
    case EAGAIN: return "EAGAIN";
    case EBADF: return "EBADF";
    case EEXIST: return "EEXIST";
    case EINVAL: return "EINVAL";
    case EIO: return "EIO";
    case ENODEV: return "ENODEV";
    case ENOMEM: return "ENOMEM";
    case ENOSYS: return "ENOSYS";
    case EOPNOTSUPP: return "EOPNOTSUPP";
    case EOVERFLOW: return "EOVERFLOW";
    case EPERM: return "EPERM";
    }
    snprintf(other, sizeof other, "errno %d", error);
    return other;
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: refuse [works|NAME]\n"
         "Try what mmap() refuses, each call in a child process, and tell the\n"
         "error; or what works though many think that it fails. A * marks\n"
         "what is not as expected. With the NAME of a row: that one as a\n"
         "program, to be compiled and changed.\n"
         "example: refuse readonly >try.c && cc try.c -o try && ./try");
    flush_stdout();
    exit(0);
}

static const struct row *find_row(const char *name)
{
    for (int i = 0; i < REFUSED; i++)
        if (strcmp(refused[i].name, name) == 0) return &refused[i];
    for (int i = 0; i < WORKING; i++)
        if (strcmp(working[i].name, name) == 0) return &working[i];
    errx(2, "%s: no such row; try --help", name);
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
    if (argc > optind + 1) errx(2, "want one NAME, or none; try --help");
    if (argc == optind) return;
    works = strcmp(argv[optind], "works") == 0;
    if (!works) chosen = find_row(argv[optind]);
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
