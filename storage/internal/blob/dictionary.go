package blob

// dictionary is what a chunk of a transcript may refer to as if it came before it: the
// members of the agents' lines, the likeliest last. It belongs to the format: chunks of kind
// kindText are unreadable with any other, so a better one would be a kind of its own.
const dictionary = `{"timestamp":"2026-01-01T00:00:00.000Z","type":"event_msg","payload":{"type":"agent_message","message":"` +
	`{"type":"response_item","payload":{"type":"reasoning","summary":[],"encrypted_content":"` +
	`"payload":{"type":"function_call_output","call_id":"call_","output":"Chunk ID: \nWall time: 0. seconds\nProcess exited with code 0\nOriginal token count: \nOutput:\n` +
	`"payload":{"type":"function_call","name":"exec_command","arguments":"{\"cmd\":\"","call_id":"call_` +
	`"payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":0,"cached_input_tokens":0,"output_tokens":0,"reasoning_output_tokens":0,"total_tokens":0},` +
	`{"id":"","timestamp":"","type":"gemini","content":"","thoughts":[],"tokens":{"input":0,"output":0,"cached":0,"thoughts":0,"tool":0,"total":0},"model":"gemini-","toolCalls":[{"id":"","name":"run_shell_command","args":{"command":"` +
	`"result":[{"functionResponse":{"id":"","name":"","response":{"output":"` +
	`"toolUseResult":{"stdout":"","stderr":"","interrupted":false,"isImage":false}` +
	`"toolUseResult":{"filePath":"","oldString":"","newString":"","originalFile":"package main\n\nimport (\n\t\"fmt\"\n` +
	`"structuredPatch":[{"oldStart":1,"oldLines":1,"newStart":1,"newLines":1,"lines":[" ","-","+"]}],"userModified":false,"replaceAll":false},"sourceToolAssistantUUID":"` +
	`"toolUseResult":{"type":"text","file":{"filePath":"/home/","content":"","numLines":1,"startLine":1,"totalLines":1}},` +
	`"toolUseResult":{"mode":"files_with_matches","filenames":[],"numFiles":0},` +
	`"message":{"role":"user","content":[{"tool_use_id":"toolu_01","type":"tool_result","content":"` +
	`"content":[{"type":"tool_result","content":"Exit code 1\n","is_error":true,"tool_use_id":"toolu_01"}]},"uuid":"` +
	`The file /home/ has been updated. Here's the result of running ` + "`cat -n`" + ` on a snippet of the edited file:\n     1→` +
	`"message":{"role":"user","content":"","uuid":"","timestamp":"2026-","thinkingMetadata":{"level":"high","disabled":false,"triggers":[]},"todos":[]}` + "\n" +
	`{"type":"file-history-snapshot","messageId":"","snapshot":{"messageId":"","trackedFileBackups":{},"timestamp":""},"isSnapshotUpdate":false}` + "\n" +
	`"content":[{"type":"thinking","thinking":"","signature":"` +
	`"content":[{"type":"tool_use","id":"toolu_01","name":"Edit","input":{"file_path":"/home/","old_string":"","new_string":"","replace_all":false}` +
	`"content":[{"type":"tool_use","id":"toolu_01","name":"Read","input":{"file_path":"` +
	`"content":[{"type":"tool_use","id":"toolu_01","name":"Grep","input":{"pattern":"","path":"","output_mode":"content"}` +
	`"content":[{"type":"tool_use","id":"toolu_01","name":"Bash","input":{"command":"","description":"` +
	`{"parentUuid":"","isSidechain":false,"userType":"external","cwd":"/home/","sessionId":"","version":"2.1.","gitBranch":"main","slug":"","type":"user","message":{"role":"user","content":[` +
	`{"parentUuid":"","isSidechain":false,"userType":"external","cwd":"/home/","sessionId":"","version":"2.1.","gitBranch":"main","slug":"","message":{"model":"claude-opus-4-5-20251101","id":"msg_01","type":"message","role":"assistant","content":[{"type":"text","text":"` +
	`"}],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":8,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":1,"service_tier":"standard"}},"requestId":"req_011C","type":"assistant","uuid":"","timestamp":"2026-01-01T00:00:00.000Z"}` + "\n"
