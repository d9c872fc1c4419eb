import java.io.FileReader;
import java.util.HashMap;
import java.util.Properties;

import org.eclipse.dataspacetck.core.system.ConsoleMonitor;
import org.eclipse.dataspacetck.runtime.ConsoleResultWriter;
import org.eclipse.dataspacetck.runtime.TckRuntime;

/** The kit's main class of this name does the same, but Maven Central doesn't have it. Arguments: -config FILE */
public class DspTckSuite {
    public static void main(String[] args) throws Exception {
        var file = new Properties();
        try (var reader = new FileReader(args[1])) {
            file.load(reader);
        }
        var properties = new HashMap<String, String>();
        properties.put("dataspacetck.launcher", "org.eclipse.dataspacetck.dsp.system.DspSystemLauncher");
        file.forEach((key, value) -> properties.put((String) key, (String) value));

        var debug = Boolean.parseBoolean(properties.get("dataspacetck.debug"));
        var ansi = Boolean.parseBoolean(properties.get("dataspacetck.ansi"));
        var monitor = new ConsoleMonitor(debug, ansi);
        var result = TckRuntime.Builder.newInstance()
                .properties(properties)
                .addPackage("org.eclipse.dataspacetck.dsp.verification")
                .monitor(monitor)
                .build()
                .execute();
        new ConsoleResultWriter(monitor).output(result);
        monitor.message("Test run complete");
        System.exit(0); // idle client threads would keep us
    }
}
