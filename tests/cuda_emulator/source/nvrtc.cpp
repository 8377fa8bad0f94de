// NVRTC, implemented with the host's g++, which compiles a CUDA source to a shared object with a table of its kernels.
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <regex>
#include <string>
#include <vector>

#include "kernel_include/kernel_abi.h"

#define FK_API extern "C" __attribute__((visibility("default")))
extern char** environ;
typedef int nvrtcResult;
// FAKECUDA_FMA=1: products and sums are contracted, as in NVRTC without --fmad=false
static const bool FMA = getenv("FAKECUDA_FMA") && atoi(getenv("FAKECUDA_FMA"));
static const int COMPILATION = 6, INVALID_INPUT = 3, NAME_UNKNOWN = 10;

struct Program {
  std::string source, log, binary;
  std::vector<std::string> expressions;
  std::map<std::string, std::string> lowered;
  std::vector<std::pair<std::string, std::string>> headers;
};

static std::string read_file(const std::string& path) {
  std::string text;
  if (FILE* f = fopen(path.c_str(), "rb")) {
    char buffer[65536];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, f));) text.append(buffer, n);
    fclose(f);
  }
  return text;
}
static void write_file(const std::string& path, const std::string& text) {
  if (FILE* f = fopen(path.c_str(), "wb")) {
    fwrite(text.data(), 1, text.size(), f);
    fclose(f);
  }
}
static std::string home() {  // the folder of the prelude, ../fakecuda beside the libraries
  Dl_info info;
  dladdr((void*)read_file, &info);
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/')) + "/../fakecuda";
}

// Returns text of the same length, with blanks in place of comments and strings, so that no names in them are found
static std::string blank(const std::string& s) {
  std::string t = s;
  for (size_t i = 0; i < s.size();) {
    size_t end = i;
    if (!s.compare(i, 2, "//")) end = s.find('\n', i);
    else if (!s.compare(i, 2, "/*")) { end = s.find("*/", i + 2); if (end != std::string::npos) end += 2; }
    else if (!s.compare(i, 3, "\"C\"")) { i += 3; continue; }
    else if (s[i] == '"') {
      for (end = i + 1; end < s.size() && s[end] != '"' && s[end] != '\n'; end++) if (s[end] == '\\') end++;
      if (end < s.size()) end++;
    } else { i++; continue; }
    if (end == std::string::npos || end > s.size()) end = s.size();
    for (; i < end; i++) if (t[i] != '\n') t[i] = ' ';
  }
  return t;
}

// Returns the names that the driver can find, those of extern "C" kernels. As in CUDA, other kernels need a name expression.
static std::vector<std::string> kernel_names(const std::string& source) {
  static const std::regex kernel(R"(\b__global__\b)"), bounds(R"(__launch_bounds__\s*\([^)]*\))"), name(R"((\w+)\s*\()");
  static const std::regex block(R"(extern\s+"C"\s*\{)");
  std::vector<std::string> names;
  const bool in_block = std::regex_search(source, block);
  for (std::sregex_iterator it(source.begin(), source.end(), kernel), end; it != end; ++it) {
    const size_t at = it->position();
    const size_t start = source.find_last_of(";}#", at ? at - 1 : 0);
    const std::string before = source.substr(start == std::string::npos ? 0 : start, at - (start == std::string::npos ? 0 : start));
    if (before.find("template") != std::string::npos) continue;
    if (!in_block && before.find("extern") == std::string::npos && source.substr(at, 200).find("extern") > 20) continue;
    const std::string after = std::regex_replace(source.substr(at, 2000), bounds, "");
    std::smatch m;
    if (std::regex_search(after, m, name)) {
      bool known = false;
      for (auto& n : names) known |= n == m[1].str();
      if (!known) names.push_back(m[1].str());
    }
  }
  return names;
}

static int run(const std::vector<std::string>& command, std::string& output, const std::string& log_path) {
  std::vector<char*> arguments;
  for (auto& c : command) arguments.push_back((char*)c.c_str());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t child;
  int status = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (status) { output = "cannot start " + command[0]; return 127; }
  while (waitpid(child, &status, 0) < 0) {}
  output = read_file(log_path);
  return status;
}

FK_API const char* nvrtcGetErrorString(nvrtcResult r) {
  switch (r) {
    case 0: return "NVRTC_SUCCESS";
    case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case COMPILATION: return "NVRTC_ERROR_COMPILATION";
    case NAME_UNKNOWN: return "NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID";
  }
  return "NVRTC_ERROR";
}
FK_API nvrtcResult nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 2; return 0; }
FK_API nvrtcResult nvrtcGetNumSupportedArchs(int* n) { *n = 1; return 0; }
FK_API nvrtcResult nvrtcGetSupportedArchs(int* a) { *a = 90; return 0; }
FK_API nvrtcResult nvrtcCreateProgram(Program** out, const char* source, const char*, int n, const char** headers, const char** names) {
  Program* p = new Program;
  p->source = source;
  for (int i = 0; i < n; i++) p->headers.emplace_back(names[i], headers[i]);
  *out = p;
  return 0;
}
FK_API nvrtcResult nvrtcDestroyProgram(Program** p) { delete *p; *p = nullptr; return 0; }
FK_API nvrtcResult nvrtcAddNameExpression(Program* p, const char* e) { p->expressions.push_back(e); return 0; }
FK_API nvrtcResult nvrtcGetLoweredName(Program* p, const char* e, const char** out) {
  auto it = p->lowered.find(e);
  if (it == p->lowered.end()) return NAME_UNKNOWN;
  *out = it->second.c_str();
  return 0;
}
FK_API nvrtcResult nvrtcCompileProgram(Program* p, int n, const char** options) {
  static const std::string place = home(), version = read_file(place + "/compiler_version.txt");
  if (p->source.empty()) { p->binary = "// " + version + (FMA ? "fma" : "") + "\n"; return 0; }  // CuPy asks for the compiler's version
  std::vector<std::string> command = {"g++", "-x", "c++", "-O1", "-w", "-fPIC", "-shared", "-s", "-fvisibility=hidden",
                                      "-fwhole-program", "-fno-threadsafe-statics", "-fno-exceptions",
                                      "-fno-math-errno", "-fmax-errors=10", "-nostdinc", "-nostdinc++"};  // without the host's headers
  std::string standard = "c++17";
  std::vector<std::string> extra;
  bool contract = FMA;
  int flags = 0;
  for (int i = 0; i < n; i++) {
    const std::string o = options[i];
    if (o.rfind("--std=", 0) == 0) standard = o.substr(6);
    else if (o.rfind("-std=", 0) == 0) standard = o.substr(5);
    else if (o == "-I" || o == "-D" || o == "--include-path" || o == "--define-macro") {
      if (++i < n) extra.push_back((o[0] == '-' && o[1] == '-' ? (o[2] == 'i' ? "-I" : "-D") : o) + options[i]);
    } else if (o.rfind("-I", 0) == 0 || o.rfind("-D", 0) == 0 || o.rfind("-U", 0) == 0) extra.push_back(o);
    else if (o.rfind("--include-path=", 0) == 0) extra.push_back("-I" + o.substr(15));
    else if (o.rfind("--define-macro=", 0) == 0) extra.push_back("-D" + o.substr(15));
    else if (o == "-ftz=true" || o == "--ftz=true") flags |= FK_FLUSH;
    else if (o == "-fmad=false" || o == "--fmad=false") contract = false;
    else if (o.rfind("-", 0) != 0) { p->log = "unrecognized option " + o; return 5; }
  }
  const bool with_cupy = p->source.find("#include <cupy/carray.cuh>") != std::string::npos;
  const std::string prelude = place + (with_cupy ? "/prelude_cupy.h" : "/prelude.h");
  command.insert(command.end(), {"-ffp-contract=" + std::string(contract ? "fast" : "off"), "-I" + place});
  if (FMA) command.insert(command.end(), {"-mfma", "-fexpensive-optimizations"});  // the second option enables contraction
  command.insert(command.end(), {"-std=" + std::string(standard == "c++11" || standard == "c++14" ? "c++17" : standard), "-include", prelude});
  command.insert(command.end(), extra.begin(), extra.end());

  char folder[] = P_tmpdir "/fakecuda-XXXXXX";
  if (!mkdtemp(folder)) return 1;
  const std::string dir = folder, file = dir + "/kernel.cu", object = dir + "/kernel.so", log = dir + "/log";
  for (auto& h : p->headers) write_file(dir + "/" + h.first, h.second);  // supports only names without a folder
  static const std::regex dynamic(R"(extern\s+__shared__\s+((?:__align__\s*\([^)]*\)\s*)?)([\w:<>,\s\*]+?)\s*\b(\w+)\s*\[\s*\]\s*;)");
  std::string text = p->source;
  if (text.find("extern __shared__") != std::string::npos || text.find("__shared__") != std::string::npos)
    text = std::regex_replace(text, dynamic, "$2* $3 = ($2*)fk_dynamic;");
  if (blank(p->source).find("__shared__") != std::string::npos) flags |= FK_SHARED;
  text += "\n#line 1 \"fakecuda\"\nFK_MODULE(" + std::to_string(flags) + ", ";
  for (auto& name : kernel_names(blank(p->source))) text += "FK_ENTRY(\"" + name + "\", " + name + "), ";
  for (auto& e : p->expressions) {
    std::string lowered = "_Zfk";
    for (char c : e) lowered += isalnum((unsigned char)c) ? std::string(1, c) : "_" + std::to_string((int)(unsigned char)c) + "_";
    p->lowered[e] = lowered;
    text += "FK_ENTRY(\"" + lowered + "\", " + e + "), ";
  }
  text += ")\n";
  write_file(file, text);
  if (getenv("FAKECUDA_KEEP")) fprintf(stderr, "fakecuda: compiling %s\n", file.c_str());
  command.insert(command.end(), {"-I" + dir, file, "-o", object});
  const int status = run(command, p->log, log);
  const std::string so = status ? "" : read_file(object);
  if (!getenv("FAKECUDA_KEEP")) {
    for (auto& h : p->headers) unlink((dir + "/" + h.first).c_str());
    for (auto& path : {file, object, log}) unlink(path.c_str());
    rmdir(folder);
  }
  if (status) {
    if (getenv("FAKECUDA_VERBOSE")) fprintf(stderr, "fakecuda: %s\n", p->log.c_str());
    return COMPILATION;
  }
  const unsigned long long size = so.size();
  p->binary = std::string("FAKECUBIN\0\0\0\0\0\0\0", 16) + std::string((const char*)&size, 8) + so;
  return 0;
}
// Sizes include a final NUL, as in NVRTC
static nvrtcResult size_of(const std::string& s, size_t* n) { *n = s.size() + 1; return 0; }
static nvrtcResult copy_of(const std::string& s, char* to) { memcpy(to, s.c_str(), s.size() + 1); return 0; }
FK_API nvrtcResult nvrtcGetPTXSize(Program* p, size_t* n) { return size_of(p->binary, n); }
FK_API nvrtcResult nvrtcGetPTX(Program* p, char* to) { return copy_of(p->binary, to); }
FK_API nvrtcResult nvrtcGetCUBINSize(Program* p, size_t* n) { return size_of(p->binary, n); }
FK_API nvrtcResult nvrtcGetCUBIN(Program* p, char* to) { return copy_of(p->binary, to); }
FK_API nvrtcResult nvrtcGetProgramLogSize(Program* p, size_t* n) { return size_of(p->log, n); }
FK_API nvrtcResult nvrtcGetProgramLog(Program* p, char* to) { return copy_of(p->log, to); }
FK_API nvrtcResult nvrtcGetLTOIRSize(Program*, size_t* n) { *n = 0; return 0; }
FK_API nvrtcResult nvrtcGetLTOIR(Program*, char*) { return INVALID_INPUT; }
